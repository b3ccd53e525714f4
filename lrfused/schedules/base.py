"""The base class of all schedules."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from operator import is_
from typing import Any, ClassVar, TypeAlias

import torch
from torch.optim import lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from .arguments import taken


class Schedule:
    """Hold the class and the arguments of a torch scheduler, without an optimizer."""

    torch_class: ClassVar[type[lr_scheduler.LRScheduler]]
    _arguments: dict[str, Any]

    def __init__(self, **arguments: Any) -> None:
        if type(self) is Schedule:
            raise TypeError("Schedule is what all schedules are; make one of them, StepLR say")
        object.__setattr__(self, "_arguments", taken(type(self), arguments))
        self._check()

    def _check(self) -> None:
        """Raise ValueError or TypeError for arguments that torch takes and fails with later."""

    @property
    def arguments(self) -> dict[str, Any]:
        """Return the arguments for torch's constructor, by name."""
        return dict(self._arguments)

    def bind(self, optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
        """Construct the torch scheduler on `optimizer`; bad arguments raise torch's own errors."""
        return self.torch_class(optimizer, **self._arguments)

    def __getattr__(self, name: str) -> Any:
        # copy and pickle ask for attributes before `_arguments` is set.
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


Schedules: TypeAlias = tuple[Schedule, ...] | None


def as_schedules(schedule: Any) -> Schedules:
    """Return None, one schedule, or several in order as a tuple; raise TypeError for the rest."""
    if schedule is None or (isinstance(schedule, tuple) and not schedule):
        return None
    several = tuple(schedule) if isinstance(schedule, (list, tuple)) else (schedule,)
    for one in several:
        if not isinstance(one, Schedule):
            hint = ""
            if isinstance(one, LRScheduler):
                hint = f"; use lrfused.{type(one).__name__}, which takes no optimizer"
            raise TypeError(
                f"schedule must be an lrfused schedule or a list of them, got {one!r}{hint}"
            )
    return several or None


def are_same(a: Schedules, b: Schedules) -> bool:
    """Return whether these are the same schedules: groups with the same ones share their state."""
    if a is None or b is None:
        return a is b
    return len(a) == len(b) and all(map(is_, a, b))


def shared_schedules(
    schedules: Mapping[int, Schedules],
) -> list[tuple[tuple[Schedule, ...], list[int]]]:
    """Return the schedules of several groups, each once, with the indices of its groups."""
    shared: list[tuple[tuple[Schedule, ...], list[int]]] = []
    for i, own in schedules.items():
        if own is None:
            continue
        indices = next((found for one, found in shared if are_same(one, own)), None)
        if indices is None:
            shared.append((own, [i]))
        else:
            indices.append(i)
    return shared
