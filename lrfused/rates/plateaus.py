"""The plateaus of an optimizer's chains: the rows of a program's tables, and what they print."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ..program import plateau_row, plateau_state, rows
from .bound import Chain


class Plateaus:
    """Hold every ReduceLROnPlateau, of chains whose groups' indices `members` lists."""

    def __init__(self, chains: Sequence[Chain], members: Sequence[Sequence[int]]) -> None:
        self._all = [plateau for chain in chains for plateau in chain.plateaus]
        self.process_group = next((g for chain in chains for g in chain.process_groups), None)
        own = [
            (plateau, k, i)
            for chain, indices in zip(chains, members, strict=True)
            for plateau in chain.plateaus
            for k, i in enumerate(indices)
        ]
        self.states = rows([plateau_state(plateau) for plateau, _, _ in own], torch.float64, 5)
        self.cells = torch.tensor([2 * i for _, _, i in own], dtype=torch.int64)
        self.rows = rows([plateau_row(plateau, k) for plateau, k, _ in own], torch.float64, 10)
        self._verbose = [
            (plateau, i)
            for chain, indices in zip(chains, members, strict=True)
            for schedule, plateau in zip(chain.schedules, chain.members, strict=True)
            if getattr(schedule, "verbose", False)
            for i in indices
        ]

    def __bool__(self) -> bool:
        return bool(self._all)

    def count(self, metrics: int) -> None:
        """Count metrics that all were fed."""
        for plateau in self._all:
            plateau.last_epoch += metrics

    def teller(self) -> Callable[[list[float], list[float]], None] | None:
        """Return what prints the cuts among the cells before and after the next metric, if any."""
        if not self._verbose:
            return None
        verbose = [(plateau.last_epoch + 1, i) for plateau, i in self._verbose]

        def tell(before: list[float], after: list[float]) -> None:
            for epoch, i in verbose:
                rate = after[2 * i]
                if rate != before[2 * i]:
                    print(f"Epoch {epoch}: reducing learning rate of group {i} to {rate:.4e}.")

        return tell
