"""A schedule made from a torch scheduler that already exists."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler

from .attributes import plain_attributes
from .base import Schedule


class Adopted(Schedule):
    """Hold an existing torch scheduler and its state. Made by `fuse`."""

    def __init__(self, scheduler: LRScheduler) -> None:
        super().__init__(scheduler=_bound(scheduler, None))

    def bind(self, optimizer: torch.optim.Optimizer) -> LRScheduler:
        """Return a copy of the scheduler bound to `optimizer`; the rates stay as they are."""
        bound: LRScheduler = _bound(self.scheduler, optimizer)
        return bound

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        return f"Adopted({type(self.scheduler).__name__})"


def _bound(scheduler: Any, optimizer: Any) -> Any:
    """Return a copy of a scheduler and its members, bound to another optimizer."""
    copied = copy.copy(scheduler)
    copied.optimizer = optimizer
    vars(copied).update(plain_attributes(scheduler))
    for name, value in vars(copied).items():
        if name == "_schedulers":
            copied._schedulers = [_bound(member, optimizer) for member in value]
        elif isinstance(value, (list, dict)):
            setattr(copied, name, copy.copy(value))
    if optimizer is not None and not hasattr(copied, "_schedulers"):
        _complete(copied, optimizer.param_groups)
    return copied


def _complete(scheduler: Any, groups: list[dict[str, Any]]) -> None:
    """Extend a scheduler's lists for groups that joined after it was made."""
    for key in ("lr_lambdas", "max_lrs", "min_lrs"):
        own = getattr(scheduler, key, None)
        if own is not None and len(own) < len(groups):
            if key != "min_lrs" or scheduler.default_min_lr is None:
                name, count = type(scheduler).__name__, len(groups)
                raise ValueError(
                    f"{name} has {key} for {len(own)} groups, the optimizer has {count}"
                )
            own.extend([scheduler.default_min_lr] * (len(groups) - len(own)))
    bases = getattr(scheduler, "base_lrs", None)
    if bases is not None:
        bases.extend(group.get("initial_lr", group["lr"]) for group in groups[len(bases) :])
