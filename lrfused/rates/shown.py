"""The rates that param_groups show, and the values that the user wrote over them."""

from __future__ import annotations

from collections.abc import Sequence
from operator import is_, itemgetter
from typing import Any, NamedTuple

from torch import Tensor

from ..checks.refusals import as_float

_LR = itemgetter("lr")


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

    rates: of each group a float; if `live`, its cell, a 0-dim tensor that is never rebound.
    momenta: of each group a float where a schedule cycles the momentum, else None; empty if none
    does. A program's `show` writes both lists and the dicts.
    """

    def __init__(self, live: bool) -> None:
        self.live = live
        self.rates: list[Any] = []
        self.momenta: list[float | None] = []

    def is_as_shown(self, groups: list[dict[str, Any]]) -> bool:
        """Return whether every rate is the object that was put there, and no momentum is cycled."""
        return not self.momenta and all(map(is_, map(_LR, groups), self.rates))

    def written(self, groups: list[dict[str, Any]]) -> list[Written]:
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

    def differs(self, written: Written) -> bool:
        """Return whether a written value is another number than the one shown."""
        shown = self.rates if written.key == "lr" else self.momenta
        return bool(shown[written.group] != written.value)

    def accept(self, groups: list[dict[str, Any]], written: Written) -> None:
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

    def put(self, groups: list[dict[str, Any]], cells: Sequence[float]) -> None:
        """Show the numbers of the cells; csrc/program.cpp's `show` does the same."""
        if not self.live:
            for i, group in enumerate(groups):
                group["lr"] = self.rates[i] = cells[2 * i]
        for i, momentum in enumerate(self.momenta):
            if momentum is not None:
                groups[i]["momentum"] = self.momenta[i] = cells[2 * i + 1]

    @property
    def momentum_cells(self) -> dict[int, int]:
        """Return the cells of cycled momenta by group."""
        return {i: 2 * i + 1 for i, momentum in enumerate(self.momenta) if momentum is not None}
