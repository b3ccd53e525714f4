"""What param_groups show: rates, cycled momenta and the places of schedules; and the user's writes.

A place is `group["schedule"]`: plain data, enough to resume, that wrappers copy and save with the
group. It is a new dict whenever the schedule moves, so that a copy of the group keeps its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import is_, itemgetter, methodcaller
from typing import Any, NamedTuple

from torch import Tensor

from ..checks.refusals import as_float
from .moved import Moved

_LR, _SCHEDULE = itemgetter("lr"), methodcaller("get", "schedule")

Groups = list[dict[str, Any]]


class Written(NamedTuple):
    """A value that the user wrote into a group."""

    group: int
    key: str  # "lr" or "momentum"
    value: float

    @property
    def cell(self) -> int:
        """Return the index of the cell that takes the value."""
        return 2 * self.group + (self.key == "momentum")


class Shown:
    """Hold what each group's dict shows; another value in the dict was written by the user.

    groups: the dicts. rates: of each a float; if `live`, its cell, a 0-dim tensor that is never
    rebound. momenta: of each a float where a schedule cycles the momentum, else None; empty if none
    does. places: of each a dict where it has a schedule, else None. templates: likewise, what a
    place has besides its epoch. A program's `show` writes these lists and the dicts.
    """

    def __init__(self, live: bool) -> None:
        self.live = live
        self.groups: Groups = []
        self.rates: list[Any] = []
        self.momenta: list[float | None] = []
        self.places: list[dict[str, Any] | None] = []
        self.templates: list[dict[str, Any] | None] = []
        self._plateaus: dict[int, list[int]] = {}  # by group, its rows of the plateaus' states
        self._observed_before = 0

    def are_known(self, groups: Groups) -> bool:
        """Return whether the list holds the known dicts, in their order."""
        return len(groups) == len(self.groups) and all(map(is_, groups, self.groups))

    def is_as_shown(self, groups: Groups) -> bool:
        """Return whether these are the known dicts, each with the objects that were put there.

        csrc/program.cpp's `shows` does the same.
        """
        return (
            self.are_known(groups)
            and all(map(is_, map(_LR, groups), self.rates))
            and all(map(is_, map(_SCHEDULE, groups), self.places))
            and not any(map(self._is_momentum_written, groups, self.momenta))
        )

    @staticmethod
    def _is_momentum_written(group: dict[str, Any], shown: float | None) -> bool:
        return shown is not None and group["momentum"] is not shown

    def written(self, groups: Groups) -> list[Written]:
        """Return what the user wrote; raise TypeError for what is no number. Changes nothing."""
        found = []
        for i, (group, shown) in enumerate(zip(groups, self.rates, strict=True)):
            if group["lr"] is not shown:
                value = as_float(f"param_groups[{i}]['lr']", group["lr"])
                found.append(Written(i, "lr", value))
        for i, momentum in enumerate(self.momenta):
            if momentum is not None and groups[i]["momentum"] is not momentum:
                value = as_float(f"param_groups[{i}]['momentum']", groups[i]["momentum"])
                found.append(Written(i, "momentum", value))
        return found

    def written_places(self, groups: Groups) -> dict[int, Any]:
        """Return what stands, by group, where another place was shown."""
        found = enumerate(zip(map(_SCHEDULE, groups), self.places, strict=True))
        return {i: value for i, (value, shown) in found if value is not shown}

    def differs(self, written: Written) -> bool:
        """Return whether a written value is another number than the one shown."""
        shown = self.rates if written.key == "lr" else self.momenta
        return bool(shown[written.group] != written.value)

    def accept(self, groups: Groups, written: Written) -> None:
        """Show a written value."""
        i, key, value = written
        if key == "momentum":
            groups[i]["momentum"] = self.momenta[i] = value
            return
        if not self.live:
            self.rates[i] = value
        groups[i]["lr"] = self.rates[i]

    def start(self, i: int, group: dict[str, Any], cells: Tensor, cycles_momentum: bool) -> None:
        """Take group i's own numbers into its cells, and show them."""
        rate = as_float(f"param_groups[{i}]['lr']", group["lr"])
        cells[2 * i] = rate
        if len(self.rates) == i:
            self.rates.append(cells[2 * i] if self.live else rate)
        elif not self.live:
            self.rates[i] = rate
        group["lr"] = self.rates[i]
        if self.momenta or cycles_momentum:
            self.momenta.extend([None] * (i + 1 - len(self.momenta)))
        if cycles_momentum:
            momentum = as_float(f"param_groups[{i}]['momentum']", group["momentum"])
            cells[2 * i + 1] = self.momenta[i] = momentum

    # -- places ------------------------------------------------------------------------------

    def start_places(
        self,
        templates: Sequence[dict[str, Any] | None],
        plateaus: dict[int, list[int]],
        moved: Moved,
    ) -> None:
        """Show every group's place anew.

        plateaus: by group, its rows of the plateaus' states.
        """
        self.templates[:], self.places[:] = templates, [None] * len(templates)
        self._plateaus = plateaus
        self._observed_before = int(moved.observed)
        self.note_states(moved)
        self.put_places(self.groups, moved.epochs.tolist())

    def note_states(self, moved: Moved) -> None:
        """Put the states of the plateaus into the templates of the places."""
        if not self._plateaus:
            return
        states = moved.plateau_states.tolist()
        metrics = int(moved.observed) - self._observed_before
        for i, rows in self._plateaus.items():
            own = {"metrics": metrics, "plateaus": [states[row] for row in rows]}
            self.templates[i] = {**(self.templates[i] or {}), **own}

    def count(self, groups: Groups, since: int) -> None:
        """Show the optimizer steps made since the last schedule step."""
        for i, place in enumerate(self.places):
            if place is not None:
                groups[i]["schedule"] = self.places[i] = {**place, "steps_since": since}

    def put_places(self, groups: Groups, epochs: Sequence[int]) -> None:
        """Show the places at these epochs; csrc/groups.cpp's `show_places` does the same."""
        for i, template in enumerate(self.templates):
            place = None if template is None else {**template, "epoch": epochs[i]}
            groups[i]["schedule"] = self.places[i] = place

    def put(self, groups: Groups, cells: Sequence[float], epochs: Sequence[int]) -> None:
        """Show the numbers of the cells and the places; csrc/program.cpp's `show` does the same."""
        if not self.live:
            for i, group in enumerate(groups):
                group["lr"] = self.rates[i] = cells[2 * i]
        for i, momentum in enumerate(self.momenta):
            if momentum is not None:
                groups[i]["momentum"] = self.momenta[i] = cells[2 * i + 1]
        self.put_places(groups, epochs)

    @property
    def momentum_cells(self) -> dict[int, int]:
        """Return the cells of cycled momenta by group."""
        return {i: 2 * i + 1 for i, momentum in enumerate(self.momenta) if momentum is not None}
