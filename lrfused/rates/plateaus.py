"""Every ReduceLROnPlateau of an optimizer: the rows of a program's tables, and messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..outside_modes import tensor
from ..program import plateau_row, plateau_state, rows
from .bound import BoundSchedules
from .program import Announce


class Plateaus:
    """Hold the plateaus of some bound schedules. They are all fed the same metrics.

    states: fp64 [P, 5] and rows: fp64 [P, 10], csrc/plateau.h's PlateauState and Plateau, one for
    each plateau and group. cells: int64 [P], the cells of the groups' rates. observed: int64 [1],
    metrics ever fed, which a program counts.
    """

    def __init__(self, bound: Sequence[BoundSchedules], observed: Tensor) -> None:
        self._all = [(plateau, plateau.last_epoch) for b in bound for plateau in b.plateaus]
        self._observed, self._before = observed, int(observed)
        self.process_group = next((g for b in bound for g in b.process_groups), None)
        own = [(plateau, k, i) for b in bound for plateau in b.plateaus for k, i in b.present()]
        self._own = [(plateau, i) for plateau, _, i in own]
        self.states = rows([plateau_state(plateau) for plateau, *_ in own], torch.float64, 5)
        self.cells = tensor([2 * i for *_, i in own], torch.int64)
        self.rows = rows([plateau_row(plateau, k) for plateau, k, _ in own], torch.float64, 10)
        self._verbose = [
            (plateau.last_epoch, i)
            for b in bound
            for schedule, plateau in zip(b.schedules, b.members, strict=True)
            if getattr(schedule, "verbose", False)
            for i in b.indices
        ]

    def put(self, states: Mapping[int, Sequence[Sequence[float]]]) -> None:
        """Put in the states of the plateaus of some groups, by the group's index."""
        for i, own in self.by_group().items():
            if i in states:
                self.states[own] = rows(states[i], torch.float64, 5)

    def by_group(self) -> dict[int, list[int]]:
        """Return the rows of each group that has plateaus, by the group's index."""
        found: dict[int, list[int]] = {}
        for row, (_, i) in enumerate(self._own):
            found.setdefault(i, []).append(row)
        return found

    def by_index(self, states: Tensor) -> dict[int, list[list[float]]]:
        """Return the states of each group's plateaus, by the group's index."""
        found: dict[int, list[list[float]]] = {}
        for (_, i), state in zip(self._own, states.tolist(), strict=True):
            found.setdefault(i, []).append(state)
        return found

    def by_member(self, states: Tensor) -> dict[int, list[float]]:
        """Return the state of each plateau, by its id: that of its first group."""
        found: dict[int, list[float]] = {}
        for (plateau, _), state in zip(self._own, states.tolist(), strict=True):
            found.setdefault(id(plateau), state)
        return found

    def __bool__(self) -> bool:
        return bool(self._all)

    def fed(self) -> int:
        """Return how many metrics a program has fed since these plateaus were loaded."""
        return int(self._observed) - self._before

    def catch_up(self) -> None:
        """Set the counters of torch's plateaus."""
        for plateau, epoch in self._all:
            plateau.last_epoch = epoch + self.fed()

    def announcer(self) -> Announce | None:
        """Return a function that prints the cuts of verbose plateaus, if there are any."""
        return self._announce if self._verbose else None

    def _announce(self, before: list[float], after: list[float]) -> None:
        for epoch, i in self._verbose:
            rate = after[2 * i]
            if rate != before[2 * i]:
                now = epoch + self.fed()
                print(f"Epoch {now}: reducing learning rate of group {i} to {rate:.4e}.")
