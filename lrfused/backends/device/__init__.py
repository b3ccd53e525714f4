"""What the backends that launch kernels share: a step's phases, and the schedule on devices."""
