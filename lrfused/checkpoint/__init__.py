"""Convert, check and load checkpoints; `FusedDecaySGD.state_dict` assembles them."""
