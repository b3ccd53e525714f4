"""torch's schedulers that lower or raise the rate by a formula of the epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch.optim import lr_scheduler

from .arguments import count
from .base import Schedule


def _functions(schedule: str, lr_lambda: Any) -> None:
    for function in lr_lambda if isinstance(lr_lambda, (list, tuple)) else [lr_lambda]:
        if not callable(function):
            raise TypeError(
                f"{schedule}(lr_lambda=...) must be a function, got {type(function).__name__}"
            )


class LambdaLR(Schedule):
    """Multiply the initial rate by `lr_lambda(epoch)`.

    `lr_lambda` may be a list, one function for each group. It is called for each epoch, up to
    1,024 epochs ahead. If it reads global state, it reads the state of that time.
    """

    torch_class = lr_scheduler.LambdaLR

    def __init__(
        self,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_epoch: int = -1,
    ) -> None:
        _functions("LambdaLR", lr_lambda)
        super().__init__(lr_lambda=lr_lambda, last_epoch=last_epoch)

    def bind(self, optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
        """Construct the torch scheduler on `optimizer`; this calls `lr_lambda(0)`."""
        try:
            return super().bind(optimizer)
        except TypeError as error:
            raise TypeError(f"LambdaLR(lr_lambda=...) must return a number: {error}") from error


class MultiplicativeLR(Schedule):
    """Multiply the rate by `lr_lambda(epoch)` every epoch.

    `lr_lambda` may be a list, one function for each group; it returns Python numbers, and is called
    as LambdaLR's is.
    """

    torch_class = lr_scheduler.MultiplicativeLR

    def __init__(
        self,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_epoch: int = -1,
    ) -> None:
        _functions("MultiplicativeLR", lr_lambda)
        super().__init__(lr_lambda=lr_lambda, last_epoch=last_epoch)


class StepLR(Schedule):
    """Multiply the rate by `gamma` once in `step_size` epochs."""

    torch_class = lr_scheduler.StepLR

    def __init__(self, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        super().__init__(step_size=step_size, gamma=gamma, last_epoch=last_epoch)

    def _check(self) -> None:
        count("StepLR", "step_size", self.step_size, never=True)


class MultiStepLR(Schedule):
    """Multiply the rate by `gamma` at each milestone, by `gamma**n` at one listed n times."""

    torch_class = lr_scheduler.MultiStepLR

    def __init__(self, milestones: Iterable[int], gamma: float = 0.1, last_epoch: int = -1) -> None:
        super().__init__(milestones=milestones, gamma=gamma, last_epoch=last_epoch)


class ConstantLR(Schedule):
    """Multiply the rate by `factor` for the first `total_iters` epochs."""

    torch_class = lr_scheduler.ConstantLR

    def __init__(self, factor: float = 1.0 / 3, total_iters: int = 5, last_epoch: int = -1) -> None:
        super().__init__(factor=factor, total_iters=total_iters, last_epoch=last_epoch)

    def _check(self) -> None:
        if self.factor == 0:  # torch divides by it at epoch total_iters
            raise ValueError("ConstantLR(factor=...) must not be 0: the rate could not come back")


class LinearLR(Schedule):
    """Move the rate's factor from `start_factor` to `end_factor` in `total_iters` equal steps."""

    torch_class = lr_scheduler.LinearLR

    def __init__(
        self,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        super().__init__(
            start_factor=start_factor,
            end_factor=end_factor,
            total_iters=total_iters,
            last_epoch=last_epoch,
        )


class PolynomialLR(Schedule):
    """Lower the rate to 0 in `total_iters` epochs, as (1 - epoch / total_iters) ** power."""

    torch_class = lr_scheduler.PolynomialLR

    def __init__(self, total_iters: int = 5, power: float = 1.0, last_epoch: int = -1) -> None:
        super().__init__(total_iters=total_iters, power=power, last_epoch=last_epoch)

    def _check(self) -> None:
        if self.power < 0:  # torch divides by 0 at epoch total_iters
            raise ValueError(f"PolynomialLR(power=...) must be at least 0, got {self.power!r}")


class ExponentialLR(Schedule):
    """Multiply the rate by `gamma` every epoch."""

    torch_class = lr_scheduler.ExponentialLR

    def __init__(self, gamma: float, last_epoch: int = -1) -> None:
        super().__init__(gamma=gamma, last_epoch=last_epoch)


class CosineAnnealingLR(Schedule):
    """Anneal the rate along half a cosine to `eta_min` in `T_max` epochs, then back up."""

    torch_class = lr_scheduler.CosineAnnealingLR

    def __init__(self, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        super().__init__(T_max=T_max, eta_min=eta_min, last_epoch=last_epoch)

    def _check(self) -> None:
        count("CosineAnnealingLR", "T_max", self.T_max, never=True)
