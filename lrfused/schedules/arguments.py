"""The arguments of schedules as plain numbers, refused at once where they are none."""

from __future__ import annotations

import inspect
import math
import re
from typing import Any

from ..checks.numbers import is_many, number, numbers, plain, plain_list


def taken(schedule: type, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return a schedule's arguments with their numbers plain.

    A parameter annotated `int` or `float` takes one number; `list`, `Sequence` or `Iterable`,
    several. Raises TypeError for what is no number, ValueError for
    NaN as a number of steps.
    """
    parameters = inspect.signature(schedule).parameters
    kinds = {name: _kind(parameters[name]) if name in parameters else "" for name in arguments}
    return {
        name: _taken(f"{schedule.__name__}({name}=...)", kinds[name], value)
        for name, value in arguments.items()
    }


def _kind(parameter: inspect.Parameter) -> str:
    if parameter.annotation is parameter.empty:
        return ""
    return inspect.formatannotation(parameter.annotation).strip("'")


def _taken(name: str, kind: str, value: Any) -> Any:
    if "Callable" in kind or not re.search(r"\b(int|float)\b", kind):
        return plain_list(plain(value)) if kind in ("", "bool") else value
    if value is None and "None" in kind:
        return None
    # An array of one is one number for all groups, as in torch, where a number may stand.
    may_be_one = kind.startswith("float")
    one_of_array = hasattr(value, "ndim") and math.prod(value.shape) == 1
    if "[" in kind and not (may_be_one and (one_of_array or not is_many(value))):
        several = numbers(name, value)
        _check_counts(name, kind, several)
        return several
    one = number(name, value)
    _check_counts(name, kind, [one])
    return one


def _check_counts(name: str, kind: str, values: list[int | float]) -> None:
    if "int" in kind and any(value != value for value in values):
        raise ValueError(f"{name} must be a number of steps, got nan")


def count(schedule: str, name: str, value: Any, least: int = 1, never: bool = False) -> Any:
    """Return a number of steps as a plain integer, or as a float without a fraction.

    Raises ValueError for any other; with `never`, infinity is taken too.
    """
    steps = number(f"{schedule}({name}=...)", value)
    if steps == math.inf and never:
        return steps
    if not least <= steps < math.inf or steps != int(steps):
        raise ValueError(
            f"{schedule}({name}=...) must be an integer of at least {least}, got {value!r}"
        )
    return steps
