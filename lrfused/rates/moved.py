"""The tensors that a program changes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..outside_modes import zeros

CAPACITY = 1024  # groups whose cells keep their addresses
_HISTORY = 1024  # rows of the history: schedule steps and cuts


class Moved(NamedTuple):
    """Tensors in host memory that a program changes, in the order of csrc/program.h's Moved.

    cells: fp64 [2 G], each group's rate and its momentum, used where a schedule cycles that.
    epochs: int64 [G], schedule steps made. used: fp64 [G], the rates of the last optimizer step.
    history: fp64 [N, 2 + G], a ring of rows (epoch, whether a plateau cut, rates). recorded:
    int64 [1], rows ever written. plateau_states: fp64 [P, 5]. observed: int64 [1], metrics ever
    fed.
    """

    cells: Tensor
    epochs: Tensor
    used: Tensor
    history: Tensor
    recorded: Tensor
    plateau_states: Tensor
    observed: Tensor

    @classmethod
    def for_groups(cls, count: int) -> Moved:
        """Return tensors with room for CAPACITY groups, or `count` if that is more."""
        capacity = max(CAPACITY, count)
        return cls(
            cells=zeros(2 * capacity),
            epochs=zeros(capacity, dtype=torch.int64),
            used=zeros(capacity).fill_(torch.nan),
            history=zeros(_HISTORY, 2),
            recorded=zeros(1, dtype=torch.int64),
            plateau_states=zeros(0, 5),
            observed=zeros(1, dtype=torch.int64),
        )

    @property
    def capacity(self) -> int:
        """Return how many groups there is room for."""
        return len(self.epochs)

    def with_history_of(self, count: int) -> Moved:
        """Return these tensors with a column of the history for each of `count` groups."""
        missing = 2 + count - self.history.shape[1]
        if missing == 0:
            return self
        new = self.history.new_full((len(self.history), missing), torch.nan)
        return self._replace(history=torch.cat([self.history, new], 1))

    def first(self, count: int) -> Moved:
        """Return views of the first `count` groups' part."""
        return self._replace(
            cells=self.cells[: 2 * count], epochs=self.epochs[:count], used=self.used[:count]
        )

    def record(self, cut: bool) -> None:
        """Add a row to the history: the first group's epoch, whether a plateau cut, the rates."""
        if len(self.history) == 0 or len(self.epochs) == 0:
            return
        row = self.history[int(self.recorded) % len(self.history)]
        row[0], row[1] = self.epochs[0], cut
        row[2:] = self.cells[::2]
        self.recorded.add_(1)

    def rows_of_history(self) -> Tensor:
        """Return the rows that are kept, oldest first."""
        recorded, length = int(self.recorded), len(self.history)
        if recorded <= length:
            return self.history[:recorded].clone()
        return self.history.roll(-(recorded % length), 0)
