"""The epochs of the next steps, and what a schedule computes from each.

An epoch is usually an integer. After torch's `scheduler.step(4.5)` it is a float, which goes on by
additions of 1 that round, as torch's do.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Any, TypeVar

T = TypeVar("T")
_EXACT = 2**52  # below it an integer equals its float, and a step adds exactly 1


def advanced(epoch: Any, steps: int) -> Any:
    """Return the epoch after so many steps."""
    if isinstance(epoch, int):
        return epoch + steps
    after = epoch + steps
    if abs(after) < _EXACT and Fraction(after) == Fraction(epoch) + steps:
        return after  # then no sum on the way rounds either
    for _ in range(steps):
        before, epoch = epoch, epoch + 1
        if epoch == before:
            break
    return epoch


def ahead(epoch: float, count: int) -> Sequence[float]:
    """Return the epochs of the next `count` steps."""
    if isinstance(epoch, int):
        return range(epoch + 1, epoch + count + 1)
    ones = itertools.repeat(1, count)
    return list(itertools.accumulate(ones, initial=epoch))[1:]


def up_to(epochs: Sequence[float], last: float) -> Sequence[float]:
    """Return the epochs that do not lie after `last`."""
    if not isinstance(epochs, range):
        return list(itertools.takewhile(lambda t: not t > last, epochs))
    if last < epochs.start:
        return epochs[:0]
    return epochs[: math.floor(last) + 1 - epochs.start] if last < epochs.stop - 1 else epochs


def are_whole(epoch: float, *lengths: float) -> bool:
    """Return whether integers alone decide at which epochs a step has to do with these lengths."""
    return isinstance(epoch, int) and (
        abs(epoch) < _EXACT or all(isinstance(length, int) for length in lengths)
    )


def tabulate(
    function: Callable[[float], T], epochs: Iterable[float]
) -> tuple[list[T], Exception | None]:
    """Return what a function gives for each epoch before one at which it raises, and that error."""
    values: list[T] = []
    for t in epochs:
        try:
            values.append(function(t))
        except Exception as error:
            return values, error
    return values, None
