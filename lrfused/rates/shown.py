"""The values put into the groups' dicts: rates, momenta and places; and the user's writes there.

A place is `group["schedule"]`: plain data, enough to resume, that wrappers copy and save with the
group. Where somebody else has it, it is a new dict whenever the schedule moves, so that a copy of
the group keeps its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import is_, itemgetter, methodcaller
from typing import Any

import torch
from torch import Tensor

from ..checks.refusals import as_float
from ..outside_modes import outside_modes
from .moved import Moved
from .written import Written

_LR, _SCHEDULE = itemgetter("lr"), methodcaller("get", "schedule")

Groups = list[dict[str, Any]]


def as_rate(i: int, value: Any) -> float:
    """Return a group's rate as a float; raise TypeError for none, and for one on a device.

    A device would have to be waited for, at each step, to see whether the tensor was filled.
    """
    name = f"param_groups[{i}]['lr']"
    if isinstance(value, Tensor) and value.device.type != "cpu":
        raise TypeError(
            f"{name} is a tensor on {value.device}, which no step can follow without waiting for "
            "the device: give a float, or a tensor on the CPU"
        )
    return as_float(name, value)


def _fill(tensor: Tensor, rate: float) -> None:
    with torch.no_grad():
        tensor.fill_(rate)


@outside_modes
def rounded(rate: float, tensor: Tensor) -> float:
    """Return the number that a tensor has when it is filled with a rate."""
    return float(torch.full_like(tensor, rate, requires_grad=False).item())


class Shown:
    """Hold what each group's dict shows; another value in the dict was written by the user.

    groups: the dicts. rates: of each a float; if `live`, its cell, a 0-dim tensor; or a tensor that
    the user gave, which is filled with the rate, and sets it where the user fills it. momenta: of
    each a float where a schedule cycles the momentum, else None; empty if none does. places: of
    each a dict where it has a schedule, else None. templates: likewise, what a place has besides
    its epoch. kept: empty, or `rates`, `momenta` and `places` as the last optimizer step left them,
    where they have changed since. A program writes these lists and the dicts.
    """

    def __init__(self, live: bool) -> None:
        self.live = live
        self.groups: Groups = []
        self.rates: list[Any] = []
        self.momenta: list[float | None] = []
        self.places: list[dict[str, Any] | None] = []
        self.templates: list[dict[str, Any] | None] = []
        self.kept: list[list[Any]] = []
        self._plateaus: dict[int, list[int]] = {}  # by group, its rows of the plateaus' states
        self.observed_before = 0  # metrics fed before these plateaus were loaded
        self._cells: list[Tensor] = []  # that are shown, if `live`
        self.followed: dict[int, float] = {}  # by group, the number last seen in the user's tensor

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
            if group["lr"] is not shown or i in self.followed:
                value = as_rate(i, group["lr"])
                if group["lr"] is not shown or value != self.followed[i]:
                    found.append(Written(i, "lr", value, group["lr"]))
        for i, momentum in enumerate(self.momenta):
            if momentum is not None and groups[i]["momentum"] is not momentum:
                value = as_float(f"param_groups[{i}]['momentum']", groups[i]["momentum"])
                found.append(Written(i, "momentum", value, groups[i]["momentum"]))
        return found

    def written_places(self, groups: Groups) -> dict[int, Any]:
        """Return what stands, by group, where another place was shown."""
        found = enumerate(zip(map(_SCHEDULE, groups), self.places, strict=True))
        return {i: value for i, (value, shown) in found if value is not shown}

    def put_back(self, groups: Groups, found: list[Written], placed: dict[int, Any]) -> None:
        """Put back what the user wrote, over which a program has shown."""
        for i, key, value, written in found:
            if self.is_users(written):
                _fill(written, value)
            groups[i][key] = written
        for i, place in placed.items():
            groups[i]["schedule"] = place

    def differs(self, written: Written, cell: float) -> bool:
        """Return whether a written value is another number than the one shown of a cell."""
        i, key, value, _ = written
        if key == "lr" and i in self.followed:
            return value != rounded(cell, self.rates[i])
        return bool((self.rates if key == "lr" else self.momenta)[i] != value)

    def accept(self, groups: Groups, written: Written) -> None:
        """Show a written value."""
        i, key, value, _ = written
        if key == "momentum":
            groups[i]["momentum"] = self.momenta[i] = value
            return
        self._show_rate(i, groups[i], value)

    def _show_rate(self, i: int, group: dict[str, Any], rate: float) -> None:
        """Show a rate as what the group has: the user's tensor, else a float or the cell."""
        self.followed.pop(i, None)
        if self.is_users(group["lr"]):
            self.rates[i], self.followed[i] = group["lr"], rate
        else:
            group["lr"] = self.rates[i] = self._cells[i] if self.live else rate

    def is_users(self, rate: Any) -> bool:
        """Return whether a rate is a tensor, and no cell."""
        return isinstance(rate, Tensor) and not any(rate is cell for cell in self._cells)

    def is_filled(self) -> bool:
        """Return whether a tensor of the user's has another number than was last seen in it."""
        return any(self.rates[i].detach().item() != seen for i, seen in self.followed.items())

    def start(self, i: int, group: dict[str, Any], cells: Tensor, cycles_momentum: bool) -> None:
        """Take group i's own numbers into its cells, and show them."""
        rate, cell = as_rate(i, group["lr"]), cells[2 * i].item()
        if not self.is_users(group["lr"]) or rate != rounded(cell, group["lr"]):
            cells[2 * i] = rate
        if self.live and len(self._cells) == i:
            self._cells.append(cells[2 * i])
        if len(self.rates) == i:
            self.rates.append(None)
        self._show_rate(i, group, rate)
        if self.momenta or cycles_momentum:
            self.momenta.extend([None] * (i + 1 - len(self.momenta)))
        if cycles_momentum:
            momentum = as_float(f"param_groups[{i}]['momentum']", group["momentum"])
            cells[2 * i + 1] = self.momenta[i] = momentum

    def entries(self, i: int) -> dict[str, Any]:
        """Return what a group's dict shows."""
        cycled = bool(self.momenta) and self.momenta[i] is not None
        momentum = {"momentum": self.momenta[i]} if cycled else {}
        return {"lr": self.rates[i], "schedule": self.places[i], **momentum}

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
        self.observed_before = int(moved.observed)
        self.note_states(moved)
        self.put_places(self.groups, moved.epochs.tolist())

    def note_states(self, moved: Moved) -> None:
        """Put the states of the plateaus into the templates of the places."""
        if not self._plateaus:
            return
        states = moved.plateau_states.tolist()
        metrics = int(moved.observed) - self.observed_before
        for i, rows in self._plateaus.items():
            own = {"metrics": metrics, "plateaus": [states[row] for row in rows]}
            self.templates[i] = {**(self.templates[i] or {}), **own}

    def count(self, groups: Groups, since: int) -> None:
        """Show the optimizer steps made since the last schedule step."""
        for i, place in enumerate(self.places):
            if place is not None:
                groups[i]["schedule"] = self.places[i] = {**place, "steps_since": since}

    def put_places(self, groups: Groups, epochs: Sequence[int]) -> None:
        """Show the places at these epochs, as csrc/groups.cpp's `show_places` does."""
        for i, template in enumerate(self.templates):
            place = None if template is None else {**template, "epoch": epochs[i]}
            groups[i]["schedule"] = self.places[i] = place

    def put(self, groups: Groups, cells: Sequence[float], epochs: Sequence[int]) -> None:
        """Show the numbers of the cells and the places; csrc/program.cpp's `show` does the same."""
        for i, group in enumerate(groups):
            if i in self.followed:
                _fill(self.rates[i], cells[2 * i])
            elif not self.live:
                group["lr"] = self.rates[i] = cells[2 * i]
        for i, momentum in enumerate(self.momenta):
            if momentum is not None:
                groups[i]["momentum"] = self.momenta[i] = cells[2 * i + 1]
        self.put_places(groups, epochs)

    @property
    def momentum_cells(self) -> dict[int, int]:
        """Return the cells of cycled momenta by group."""
        return {i: 2 * i + 1 for i, momentum in enumerate(self.momenta) if momentum is not None}
