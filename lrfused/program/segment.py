"""Segments: affine maps of a cell, and the steps at which they apply."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

FOREVER = 2**62  # steps; no counter comes that far, and infinity and sys.maxsize are beyond
# Added to a product, it changes no bit; 0.0 would turn -0.0 into 0.0.
NOTHING = -0.0


@dataclass(frozen=True)
class Segment:
    """Hold one affine map for one group, and the schedule steps at which it applies.

    begin, every and end count schedule steps from now; the next is 1, and `delayed(epoch)` turns
    them into epochs. The map applies at begin, begin + every, ... below end: to the rate, or with
    `momentum` to the momentum.
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
        """Return the part of the segment before `end`."""
        return replace(self, end=min(self.end, end))


def assign(value: float, momentum: bool = False) -> Segment:
    """Return a segment that sets `value` in the next step, and in no other."""
    return Segment(1, 2, absolute=True, a=float(value), momentum=momentum)


@dataclass
class CompiledSchedule:
    """Hold a scheduler's segments for each of its groups, valid for the steps before `until`.

    If the schedule cannot be compiled further, `error` is the error to raise at step `until`.
    """

    groups: list[list[Segment]]
    until: int = FOREVER
    error: Exception | None = field(default=None)
