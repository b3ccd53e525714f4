"""Plain Python numbers, made of whatever numbers a program passes.

Checkpoints hold only what went through here, so that they load with `weights_only=True`.
"""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Rational, Real
from typing import Any

from torch import Tensor

from ..outside_modes import outside_modes


def number(name: str, value: Any) -> int | float:
    """Return one real number as an int, float or bool; raise TypeError naming it otherwise.

    Takes numbers of Python and numpy, and arrays and tensors of one element. An integer stays an
    integer; every other number is the nearest double, which is the same number but for a Fraction.
    """
    if type(value) in (float, int, bool):
        return value
    try:
        return _number(value)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise TypeError(f"{name} must be one real number, got {value!r}") from error


@outside_modes
def _number(value: Any) -> int | float:
    if isinstance(value, (Real, Tensor)) or hasattr(value, "dtype"):
        if isinstance(value, Tensor):
            value = value.detach()
        item = value.item() if hasattr(value, "item") else value
        if type(item) in (float, int, bool):
            return item
        if isinstance(item, Rational) and item.denominator == 1:  # every integer is one
            return int(item.numerator)
        if isinstance(item, Real):  # numpy's long double is its own item
            return float(item)
    raise TypeError("no number")


def numbers(name: str, values: Any) -> list[int | float]:
    """Return several real numbers as a list; raise TypeError naming the one that is none."""
    values = _listed(values)
    if not isinstance(values, Iterable) or isinstance(values, (str, bytes, dict)):
        raise TypeError(f"{name} must be a list of numbers, got {values!r}")
    return [number(f"{name}[{i}]", value) for i, value in enumerate(values)]


@outside_modes
def _listed(values: Any) -> Any:
    """Return an array or tensor of one dimension as a list, anything else as it is."""
    return values.tolist() if getattr(values, "ndim", 0) == 1 else values


def is_many(value: Any) -> bool:
    """Return whether a value is a list, a tuple, or an array or tensor of one dimension."""
    return isinstance(value, (list, tuple)) or getattr(value, "ndim", 0) == 1


def plain(value: Any) -> Any:
    """Return a number as a plain one, and anything else as it is."""
    try:
        return number("", value)
    except TypeError:
        return value


def plain_list(values: Any) -> Any:
    """Return a list with its numbers plain; anything that cannot be listed as it is."""
    return [plain(value) for value in _listed(values)] if is_many(values) else values
