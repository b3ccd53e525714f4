"""The rates of the last schedule steps and plateau cuts."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ..outside_modes import outside_modes


class LRHistory(NamedTuple):
    """List schedule steps and plateau cuts, oldest first, each with the rates after it.

    steps: how many schedule steps had been made by then. lrs: the rates of all groups; NaN for a
    group that had not joined yet. cuts: the indices of the entries that are cuts by
    ReduceLROnPlateau; all others are schedule steps.
    """

    steps: list[int]
    lrs: list[list[float]]
    cuts: list[int]

    @classmethod
    @outside_modes
    def of(cls, rows: Tensor) -> LRHistory:
        """Read rows (epoch, whether a plateau cut, rates), a fp64 tensor."""
        table = rows.tolist()
        cuts = [i for i, row in enumerate(table) if row[1]]
        return cls([int(row[0]) for row in table], [row[2:] for row in table], cuts)
