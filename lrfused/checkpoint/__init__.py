"""What checkpoints hold: the optimizer's state, its schedulers', and state made ahead."""
