"""torch's learning-rate schedulers without their optimizer: values that say what will be bound.

Each takes its torch namesake's arguments, under the same names and with the same defaults, less
`optimizer`. An instance is an immutable value; `bind` makes the torch scheduler it stands for.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch.optim import lr_scheduler

from .checks import as_float

__all__ = [
    "CosineAnnealingLR",
    "ExponentialLR",
    "LambdaLR",
    "MultiStepLR",
    "ReduceLROnPlateau",
    "Schedule",
    "StepLR",
]


def _at_least_one(schedule: str, name: str, value: Any) -> None:
    # torch finds a step_size or T_max of 0 at the first step, by dividing by it.
    if not isinstance(value, (int, float)) or value < 1 or value != int(value):
        raise ValueError(f"{schedule}({name}=...) must be an integer of at least 1, got {value!r}")


def _numbers(schedule: str, **arguments: Any) -> None:
    # torch finds a gamma that is a word at the step that multiplies by it.
    for name, value in arguments.items():
        as_float(f"{schedule}({name}=...)", value)


class Schedule:
    """Stand for a torch scheduler that has no optimizer yet."""

    torch_class: ClassVar[type[lr_scheduler.LRScheduler]]
    _arguments: dict[str, Any]

    def __init__(self, **arguments: Any) -> None:
        object.__setattr__(self, "_arguments", arguments)

    @property
    def arguments(self) -> dict[str, Any]:
        """Return the arguments for torch's constructor, by name."""
        return dict(self._arguments)

    def bind(self, optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
        """Construct the torch scheduler on `optimizer`; bad arguments raise torch's own errors."""
        return self.torch_class(optimizer, **self._arguments)

    def __getattr__(self, name: str) -> Any:
        # Not __init__'s dict: a copy being made has none yet.
        arguments = self.__dict__.get("_arguments", {})
        if name in arguments:
            return arguments[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a {type(self).__name__} cannot be changed; make a new one")

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._arguments == other._arguments

    def __hash__(self) -> int:
        return hash((type(self), repr(self._arguments)))

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self)).parameters
        shown = (f"{k}={v!r}" for k, v in self._arguments.items() if v != defaults[k].default)
        return f"{type(self).__name__}({', '.join(shown)})"


class LambdaLR(Schedule):
    """Multiply the initial rate by `lr_lambda(epoch)`.

    `lr_lambda` may be a list, one function for each group. It is called once for each epoch, some
    epochs ahead of their turn; a function that reads changing global state is read at that time.
    """

    torch_class = lr_scheduler.LambdaLR

    def __init__(
        self,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_epoch: int = -1,
    ) -> None:
        functions = lr_lambda if isinstance(lr_lambda, (list, tuple)) else [lr_lambda]
        for function in functions:
            if not callable(function):
                raise TypeError(
                    f"LambdaLR(lr_lambda=...) must be a function, got {type(function).__name__}"
                )
        super().__init__(lr_lambda=lr_lambda, last_epoch=last_epoch)

    def bind(self, optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
        """Construct the torch scheduler on `optimizer`, which asks for epoch 0 at once."""
        try:
            return super().bind(optimizer)
        except TypeError as error:
            raise TypeError(f"LambdaLR(lr_lambda=...) must return a number: {error}") from error


class StepLR(Schedule):
    """Multiply the rate by `gamma` once in `step_size` epochs."""

    torch_class = lr_scheduler.StepLR

    def __init__(self, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        _at_least_one("StepLR", "step_size", step_size)
        _numbers("StepLR", gamma=gamma)
        super().__init__(step_size=step_size, gamma=gamma, last_epoch=last_epoch)


class MultiStepLR(Schedule):
    """Multiply the rate by `gamma` at each milestone, by `gamma**n` at one listed n times."""

    torch_class = lr_scheduler.MultiStepLR

    def __init__(self, milestones: Iterable[int], gamma: float = 0.1, last_epoch: int = -1) -> None:
        if not isinstance(milestones, Iterable):
            raise TypeError(f"MultiStepLR(milestones=...) must be integers, got {milestones!r}")
        _numbers("MultiStepLR", gamma=gamma)
        super().__init__(milestones=list(milestones), gamma=gamma, last_epoch=last_epoch)


class ExponentialLR(Schedule):
    """Multiply the rate by `gamma` every epoch."""

    torch_class = lr_scheduler.ExponentialLR

    def __init__(self, gamma: float, last_epoch: int = -1) -> None:
        _numbers("ExponentialLR", gamma=gamma)
        super().__init__(gamma=gamma, last_epoch=last_epoch)


class CosineAnnealingLR(Schedule):
    """Anneal the rate along half a cosine to `eta_min` in `T_max` epochs, and back up after."""

    torch_class = lr_scheduler.CosineAnnealingLR

    def __init__(self, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        _at_least_one("CosineAnnealingLR", "T_max", T_max)
        _numbers("CosineAnnealingLR", eta_min=eta_min)
        super().__init__(T_max=T_max, eta_min=eta_min, last_epoch=last_epoch)


class ReduceLROnPlateau(Schedule):
    """Multiply the rate by `factor` when a metric has not improved for `patience` epochs.

    Fed by `optimizer.scheduler.step(metric)`, which reads nothing back. `verbose=True` prints each
    reduction.
    """

    torch_class = lr_scheduler.ReduceLROnPlateau

    def __init__(
        self,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0,
        eps: float = 1e-8,
        verbose: bool = False,
    ) -> None:
        _numbers(
            "ReduceLROnPlateau", factor=factor, patience=patience, threshold=threshold,
            cooldown=cooldown, eps=eps,
        )  # fmt: skip
        super().__init__(
            mode=mode,
            factor=factor,
            patience=patience,
            threshold=threshold,
            threshold_mode=threshold_mode,
            cooldown=cooldown,
            min_lr=min_lr,
            eps=eps,
            verbose=verbose,
        )

    def bind(self, optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
        """Construct the torch scheduler on `optimizer`, which knows no `verbose` any more."""
        arguments = self.arguments
        arguments.pop("verbose")
        return lr_scheduler.ReduceLROnPlateau(optimizer, **arguments)
