"""Methods that replace torch's: in a subclass of SGD, or on one optimizer or scheduler."""

from __future__ import annotations

import inspect
from typing import Any

from torch.optim import SGD

# Attributes that SGD.step reads. `step` is not listed: torch wraps it, so it is compared unwrapped.
_READ = ("_init_group", "param_groups", "state", "defaults", "__getattribute__", "__getattr__")
_OF_A_SCHEDULER = ("step", "get_lr", "_get_closed_form_lr", "_update_lr")


def has_torchs_step(cls: type) -> bool:
    """Return whether a class of optimizer has the step of torch's SGD."""
    return _unwrapped(getattr(cls, "step", None)) is _unwrapped(SGD.step)


def overridden(optimizer: SGD) -> str | None:
    """Return the name of a method of SGD's step that an optimizer replaces, or None."""
    cls, own = type(optimizer), vars(optimizer)
    if "step" in own and _unwrapped(own["step"]) is not _unwrapped(SGD.step):
        return "step"
    if "_init_group" in own and getattr(own["_init_group"], "__func__", None) is not (
        SGD._init_group
    ):
        return "_init_group"
    for name in _READ:
        if inspect.getattr_static(cls, name, None) is not inspect.getattr_static(SGD, name, None):
            return name
    return None


def own_methods(scheduler: Any) -> list[str]:
    """Return the methods that were assigned to one scheduler, in place of its class's."""
    return [name for name in _OF_A_SCHEDULER if name in vars(scheduler)]


def _unwrapped(function: Any) -> Any:
    """Return a function without torch's wrappers, for profiling and for counting steps.

    A user's wrapper stays: it may do anything. functools.wraps copies torch's marks onto it, but
    not the module of its code.
    """
    function = getattr(function, "__func__", function)
    while hasattr(function, "__wrapped__") and _is_torchs(function):
        function = function.__wrapped__
        function = getattr(function, "__func__", function)
    return function


def _is_torchs(function: Any) -> bool:
    module = getattr(function, "__globals__", {}).get("__name__", "")
    return str(module).startswith("torch.optim.")
