"""The clock of a schedule: how many optimizer steps go to one schedule step."""

from __future__ import annotations


class Clock:
    """Count optimizer steps since the last schedule step.

    every: optimizer steps to one schedule step, which is part of the last of them; None if the
    loop makes schedule steps by hand.
    """

    __slots__ = ("every", "since")

    def __init__(self, every: int | None) -> None:
        self.every = every
        self.since = 0

    def is_due(self) -> bool:
        """Return whether the next optimizer step ends with a schedule step."""
        return self.every is not None and self.since + 1 >= self.every

    def tick(self) -> None:
        """Count an optimizer step."""
        if self.every is not None:
            self.since = 0 if self.since + 1 >= self.every else self.since + 1
