"""Values that the user wrote into groups, taken before the next step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ..outside_modes import outside_modes
from . import places

if TYPE_CHECKING:
    from .rates import Rates

Groups = list[dict[str, Any]]


class Written(NamedTuple):
    """A value that the user wrote into a group, as it was found there and as a number."""

    group: int
    key: str  # "lr" or "momentum"
    value: float
    found: Any

    @property
    def cell(self) -> int:
        """Return the index of the cell that takes the value."""
        return 2 * self.group + (self.key == "momentum")


@outside_modes
def take(rates: Rates, groups: Groups) -> None:
    """Take rates, momenta and places that the user wrote; a device's decisions came before them.

    Raises TypeError or ValueError for what cannot be taken, and takes nothing then.
    """
    shown = rates.shown
    found, placed = shown.written(groups), shown.written_places(groups)
    if found or placed or rates.program.captured:
        rates.settle_device()
    if not rates.program.is_shown:
        rates.keep()
        rates.program.show(groups)
        shown.put_back(groups, found, placed)
    if placed:
        rates.update()
        places.take(rates, groups, placed)
        found = shown.written(groups)
    for written in found:
        cell = rates.moved.cells[written.cell].item()
        if shown.differs(written, cell):
            if written.key == "lr" and rates.bound_to(written.group) is not None:
                rates.overwritten.keep(written.group, rates.changes(), cell)
            rates.moved.cells[written.cell] = written.value
        shown.accept(groups, written)
    if found and rates.program.captured and not rates.program.recording:
        rates.program.push()  # for the next replay
