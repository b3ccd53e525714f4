"""Count the steps of each optimizer, and the time that they take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Tally:
    """Hold the counts of one optimizer, or of several that a table shows in one row.

    name: of the class. other: who makes its steps instead of lrfused, and why; None if lrfused
    does, with this backend. first_step, later_steps, zero_grad: seconds of the host, without a
    closure's and without checks. checked: steps; differing: values in them; first: describes the
    first of these.
    """

    name: str
    other: str | None = None
    backend: str = ""
    optimizers: int = 1
    steps: int = 0
    first_step: float = 0.0
    later_steps: float = 0.0
    zero_grad: float = 0.0
    checked: int = 0
    differing: int = 0
    first: str = ""

    @property
    def seconds(self) -> float:
        """Return the time of all that is counted."""
        return self.first_step + self.later_steps + self.zero_grad

    def add(self, other: Tally) -> None:
        """Add the counts of another."""
        self.optimizers += other.optimizers
        self.steps += other.steps
        self.first_step += other.first_step
        self.later_steps += other.later_steps
        self.zero_grad += other.zero_grad
        self.checked += other.checked
        self.differing += other.differing
        self.first = self.first or other.first


def by_row(tallies: list[Tally]) -> list[Tally]:
    """Return the sums over optimizers of one class, one maker of steps and one reason."""
    rows: dict[tuple[str, str | None, str], Tally] = {}
    for tally in tallies:
        row = rows.setdefault(
            (tally.name, tally.other, tally.backend),
            Tally(tally.name, tally.other, tally.backend, optimizers=0),
        )
        row.add(tally)
    return list(rows.values())
