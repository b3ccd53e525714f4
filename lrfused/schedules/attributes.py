"""The numbers that torch's schedulers keep, by the names of their attributes."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import Any

from torch import Tensor

from ..checks.numbers import number, numbers, plain, plain_list
from ..checks.refusals import check_epoch

_NUMBERS = {
    "last_epoch", "_step_count", "step_size", "gamma", "factor", "total_iters", "start_factor",
    "end_factor", "power", "T_max", "eta_min", "T_0", "T_i", "T_mult", "T_cur", "total_steps",
    "total_size", "step_ratio", "patience", "threshold", "cooldown", "cooldown_counter",
    "num_bad_epochs", "best", "eps", "default_min_lr",
}  # fmt: skip
_LISTS = {
    "base_lrs", "max_lrs", "min_lrs", "base_momentums", "max_momentums", "_milestones", "_last_lr",
}  # fmt: skip
# A user's functions, and members, whose own attributes are taken one by one.
_APART = {"lr_lambdas", "_scale_fn_custom", "_schedulers"}


def plain_attributes(scheduler: Any) -> dict[str, Any]:
    """Return the attributes of a torch scheduler that hold numbers, with the numbers plain.

    Raises TypeError naming one that is no number, ValueError for an epoch that no counter holds.
    """
    name = type(scheduler).__name__
    made: dict[str, Any] = {}
    for key, value in vars(scheduler).items():
        full = f"fuse(scheduler=...): {name}.{key}"
        if value is None or key in _APART:
            continue
        if key in _NUMBERS:
            made[key] = number(full, value)
            if key == "last_epoch":
                check_epoch(full, made[key])
        elif key in _LISTS:
            made[key] = numbers(full, value)
        elif key == "milestones":
            made[key] = _milestones(full, value)
        elif isinstance(plain(value), (bool, int, float)):
            made[key] = plain(value)
    return made


def own_data(scheduler: Any) -> dict[str, Any]:
    """Return the attributes of a torch scheduler that are plain data, or must be."""
    named = _NUMBERS | _LISTS | {"milestones"}
    return {k: v for k, v in vars(scheduler).items() if k in named or is_plain(v)}


def is_plain(value: Any, depth: int = 4) -> bool:
    """Return whether a value is made of numbers, strings, tensors, arrays and containers."""
    if isinstance(value, (list, tuple, dict)):
        inner = [*value, *value.values()] if isinstance(value, dict) else value
        return depth > 0 and all(is_plain(one, depth - 1) for one in inner)
    if type(value).__module__ == "numpy":
        return True
    return value is None or isinstance(plain(value), (bool, int, float, str, Tensor))


def _milestones(name: str, counted: Any) -> Counter[int | float]:
    """Return milestones as torch's MultiStepLR counts them, with plain numbers as keys."""
    keys = [key for key in counted if not isinstance(key, Tensor)]
    if len(keys) < len(counted):  # a dict finds a tensor by its identity alone
        warnings.warn(f"{name} has tensors, which torch never reaches: pass numbers", stacklevel=7)
    return Counter({number(name, key): int(number(name, counted[key])) for key in keys})


def plain_state(state: dict[str, Any]) -> dict[str, Any]:
    """Return a scheduler's state with its numbers plain; what is no number stays as it is."""
    return {key: value if key in _APART else _plain(key, value) for key, value in state.items()}


def _plain(key: str, value: Any) -> Any:
    if isinstance(value, Counter):
        return Counter({plain(one): plain(times) for one, times in value.items()})
    if isinstance(value, dict):
        return {inner: _plain(inner, item) for inner, item in value.items()}
    if key in _LISTS or key == "milestones":
        return plain_list(value)
    if isinstance(value, (list, tuple)):
        return [_plain("", item) for item in value]
    return plain_list(plain(value))
