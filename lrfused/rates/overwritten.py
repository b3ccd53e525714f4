"""Rates that schedules have set, where the user has written others since."""

from __future__ import annotations

from collections.abc import Iterable


class Overwritten(dict[int, tuple[int, float]]):
    """Hold by group `Rates.changes()` of then, and the rate that was set."""

    def keep(self, group: int, now: int, rate: float) -> None:
        """Keep what a schedule has set, before the first of several writes."""
        if self.get(group, (-1, 0.0))[0] != now:
            self[group] = now, rate

    def load(self, now: int, rates: Iterable[tuple[int, float]]) -> None:
        """Let `last` return these, by group, until the schedules set others."""
        self.update({group: (now, float(rate)) for group, rate in rates})

    def last(self, group: int, now: int, rate: float) -> float:
        """Return what the schedules have set last, where a group has this rate."""
        then, kept = self.get(group, (-1, 0.0))
        return kept if then == now else rate
