"""Sparse gradients, and a FusedDecaySGD beside torch's for-loop that are given them."""

import pytest
import torch

from lrfused import ExponentialLR, FusedDecaySGD

from .bits import assert_same_bits
from .contract import nothing_changes
from .twin import assert_same_state, leaf, numbers, sgd

SHAPE = (6, 3)
HYPER = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "dampened, maximized": {"momentum": 0.9, "dampening": 0.3, "maximize": True},
    "nesterov": {"momentum": 0.9, "nesterov": True},
    "decay": {"weight_decay": 0.1},
    "all": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "maximize": True},
}
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
DTYPES += [torch.complex64, torch.complex128]


def coo(step, dtype=torch.float32, shape=SHAPE, sparse_dim=1):
    """Draw a gradient whose entries repeat an index, as those of an embedding do."""
    rows = torch.tensor([[0, 2, 2, 5]] * sparse_dim) % torch.tensor(shape[:sparse_dim])[:, None]
    values = numbers(4, *shape[sparse_dim:], dtype=dtype, seed=step + 1)
    values[2] = values[1]  # a GPU adds duplicates in any order
    return torch.sparse_coo_tensor(rows.to(values.device), values, shape)


def draw(kind, step, dtype):
    """Draw a gradient: s is sparse, c is coalesced, d is dense, and _ is none."""
    if kind == "d":
        return numbers(*SHAPE, dtype=dtype, seed=step + 1)
    grad = None if kind == "_" else coo(step, dtype)
    return grad.coalesce() if kind == "c" else grad


class Pair:
    """A FusedDecaySGD and torch's for-loop, over a dense parameter and one of sparse gradients."""

    def __init__(self, backend, dtype=torch.float32, hyper=HYPER["momentum"], **kwargs):
        values = [numbers(33), numbers(*SHAPE, dtype=dtype, seed=1)]
        self.mine, self.other = ([leaf(v) for v in values] for _ in range(2))
        self.ours = FusedDecaySGD(
            self.mine, lr=0.1, schedule=ExponentialLR(0.9), backend=backend, **hyper, **kwargs
        )
        self.theirs = sgd(self.other, lr=0.1, **hyper)
        self.scheduler = torch.optim.lr_scheduler.ExponentialLR(self.theirs, 0.9)

    def give(self, make, step):
        """Set the same gradients on both, each its own copy."""
        for dense, odd in (self.mine, self.other):
            dense.grad, odd.grad = numbers(33, seed=50 + step), make()

    def step(self):
        self.ours.step()
        self.theirs.step()
        self.scheduler.step()
        assert_same_state(self.ours, self.theirs)

    def run(self, kinds, dtype=torch.float32):
        """Step over these kinds of gradients; return torch's error where it raises one."""
        for step, kind in enumerate(kinds):
            self.give(lambda kind=kind, step=step: draw(kind, step, dtype), step)
            grad = self.mine[1].grad
            before = None if grad is None else grad.clone()
            try:
                self.theirs.step()
            except RuntimeError as error:
                with nothing_changes(self.ours), pytest.raises(RuntimeError, match="torch"):
                    self.ours.step()
                return error
            self.ours.step()
            self.scheduler.step()
            assert_same_state(self.ours, self.theirs, f"step {step} of {kinds}")
            if before is not None:
                assert_same_bits(grad, before, "the gradient")
        return None
