"""What a program is made of: affine maps of a cell, and the steps at which they apply."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

FOREVER = 2**62
# Added to a product, leaves it as it is; 0.0 would turn -0.0 into 0.0.
NOTHING = -0.0


@dataclass(frozen=True)
class Segment:
    """Say at which of the steps to come one affine map applies to one group, and which.

    Steps count from 1, the next one: begin, begin + every, ... below end. The map is of the rate,
    or of the momentum where a schedule cycles that.
    """

    begin: int
    end: int
    every: int = 1
    absolute: bool = False
    x: float | Sequence[float] = 1.0
    a: float = 0.0
    b: float = NOTHING
    momentum: bool = False

    def delayed(self, by: int) -> Segment:
        """Return the segment `by` steps later."""
        end = self.end if self.end == FOREVER else self.end + by
        return replace(self, begin=self.begin + by, end=end)

    def until(self, end: int) -> Segment:
        """Return what there is of the segment before `end`."""
        return replace(self, end=min(self.end, end))


def assign(value: float, momentum: bool = False) -> Segment:
    """Return the segment of the next step only that sets `value`."""
    return Segment(1, 2, absolute=True, a=float(value), momentum=momentum)


@dataclass
class Compiled:
    """Hold a scheduler's segments for each of its groups, valid for the steps before `until`.

    Where a schedule cannot be compiled further, `error` says why, to be raised in its turn.
    """

    groups: list[list[Segment]]
    until: int = FOREVER
    error: Exception | None = field(default=None)
