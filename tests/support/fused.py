"""A torch loop beside the same loop after `fuse`: same rates, momenta, epochs and errors."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import lr_scheduler

from lrfused import fuse
from support.bits import assert_same_rates

CLASSES: dict[str, Callable[[Any], Any]] = {
    "StepLR": lambda o: lr_scheduler.StepLR(o, 3, 0.9),
    "StepLR-2.5": lambda o: lr_scheduler.StepLR(o, 2.5, 0.9),  # type: ignore[arg-type]
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [5.5, 6.5, 6.5, 9, 10**12 + 3], 0.5),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, 0.5, 7.5),  # type: ignore[arg-type]
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, 0.1, 1.0, 20),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.99),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, 30, 2.0),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 17, 0.01),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(
        o, 7, 2, 1e-3
    ),
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda e: 1 / (1 + e)),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(
        o, lambda e: 0.99 + 0.01 * math.sin(e)
    ),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, 7, 5),
    "CyclicLR-halving": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, 7, mode="triangular2"),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.5, total_steps=60),
    "OneCycleLR-linear": lambda o: lr_scheduler.OneCycleLR(
        o, 0.5, total_steps=60, anneal_strategy="linear", three_phase=True
    ),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o,
        [
            lr_scheduler.LinearLR(o, 0.1, 1, 5),
            lr_scheduler.CosineAnnealingLR(o, 9),
            lr_scheduler.ExponentialLR(o, 0.9),
        ],
        [6, 14.5],  # type: ignore[list-item]
    ),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.StepLR(o, 4, 0.9), lr_scheduler.ExponentialLR(o, 0.99)]
    ),
}


def optimizer_of(lr: Any = 0.1) -> torch.optim.SGD:
    parameter = torch.ones(1, requires_grad=True)
    return torch.optim.SGD([parameter], lr=lr, momentum=0.9)


class Pair:
    """Two runs of one step; `move` then changes both schedulers, and the second run is fused."""

    def __init__(
        self, make: Callable[[Any], Any], move: Callable[[Any], None] = id, **how: Any
    ) -> None:
        self.theirs, ours = optimizer_of(), optimizer_of()
        self.scheduler, scheduler = make(self.theirs), make(ours)
        for optimizer, s in ((self.theirs, self.scheduler), (ours, scheduler)):
            optimizer.step()
            s.step()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of an epoch that is given
                move(s)
        self.ours, self.handle = fuse(ours, scheduler, **how)

    def run(self, steps: int, every: int = 1) -> int:
        """Step and compare; return at which step both failed, or so many steps."""
        for step in range(1, steps + 1):
            self.theirs.step()
            self.ours.step()
            errors = [_error_of(s.step) for s in (self.scheduler, self.handle)]
            assert errors[0] == errors[1], f"at step {step}"
            if errors[0] is not None:
                return step
            if step % every == 0:
                self.compare(f"at step {step}")
        return steps

    def compare(self, when: str) -> None:
        for key in ("lr", "momentum"):
            pairs = [[g[key] for g in o.param_groups] for o in (self.ours, self.theirs)]
            assert_same_rates(*pairs, f"{when}, {key}")
        if hasattr(self.scheduler, "last_epoch"):
            assert self.handle.last_epoch == self.scheduler.last_epoch, when


def pair_of(name: str, move: Callable[[Any], None] = id, **how: Any) -> Pair:
    return Pair(CLASSES[name], move, **how)


def _error_of(step: Callable[[], None]) -> type | None:
    try:
        step()
    except Exception as error:
        return type(error)
    return None
