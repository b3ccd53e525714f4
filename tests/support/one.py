"""A FusedDecaySGD over one small parameter, and gradients for it."""

from typing import Any

import torch

from lrfused import FusedDecaySGD

from .twin import leaf, numbers


def one(backend: Any, size: int = 9, **kwargs: Any) -> FusedDecaySGD:
    return FusedDecaySGD([leaf(numbers(size))], backend=backend, **{"lr": 0.1, **kwargs})


def give(optimizer: torch.optim.Optimizer, seed: int = 5) -> None:
    for group in optimizer.param_groups:
        for i, p in enumerate(group["params"]):
            p.grad = numbers(*p.shape, dtype=p.dtype, seed=seed + i)
