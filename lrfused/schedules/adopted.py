"""A schedule made from a torch scheduler that already exists."""

from __future__ import annotations

import copy
import functools
from collections import Counter
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler

from .attributes import own_data, plain_attributes
from .base import Schedule
from .versions import translate


class Adopted(Schedule):
    """Hold an existing torch scheduler and its state. Made by `fuse`."""

    def __init__(self, scheduler: LRScheduler) -> None:
        super().__init__(scheduler=_adopted(scheduler))

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


# The attributes of torch's own that are functions.
_FUNCTIONS = ("lr_lambdas", "_scale_fn_custom", "_scale_fn_ref", "scale_fn", "anneal_func")


def _adopted(scheduler: Any) -> Any:
    """Return a copy of a scheduler and its members without an optimizer.

    It has torch's attributes, and of the user's own those that are plain data.
    """
    functions = {k: v for k, v in vars(scheduler).items() if k in _FUNCTIONS}
    copied = _copy_of(scheduler, {**own_data(scheduler), **functions})
    translate(copied, scheduler.optimizer.param_groups)
    vars(copied).update(plain_attributes(copied))
    if hasattr(scheduler, "_schedulers"):
        copied._schedulers = [_adopted(member) for member in scheduler._schedulers]
    if hasattr(copied, "lr_lambdas"):
        copied.lr_lambdas = list(map(_with_attributes, copied.lr_lambdas))
    if getattr(copied, "_scale_fn_custom", None) is not None:
        copied._scale_fn_custom = _with_attributes(copied._scale_fn_custom)
    return copied


def _with_attributes(function: Any) -> Any:
    """Return a function that has the __dict__ which torch's state_dict() reads."""
    return function if hasattr(function, "__dict__") else functools.partial(function)


def _copy_of(scheduler: Any, attributes: dict[str, Any]) -> Any:
    copied = object.__new__(type(scheduler))
    for name, value in attributes.items():
        own = copy.copy(value) if type(value) in (list, dict, Counter) else value
        vars(copied)[name] = own
    return copied


def _bound(scheduler: Any, optimizer: Any) -> Any:
    """Return a copy of an adopted scheduler and its members, bound to an optimizer."""
    copied = _copy_of(scheduler, vars(scheduler))
    copied.optimizer = optimizer
    if hasattr(copied, "_schedulers"):
        copied._schedulers = [_bound(member, optimizer) for member in copied._schedulers]
    else:
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
