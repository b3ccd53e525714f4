"""Shared by the backends that launch kernels: a step's phases, and the schedule on devices."""
