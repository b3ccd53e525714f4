"""A program as tensors: rows of integers, rows of constants, and tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..outside_modes import tensor
from .segment import FOREVER, Segment


class ProgramTables(NamedTuple):
    """Hold all groups' schedules and plateaus as rows of csrc/schedule.h and csrc/plateau.h.

    segments: int64 [S, 6]. constants: fp64 [S, 3]. tables: fp64 [T]. plateau_cells: int64 [P].
    plateaus: fp64 [P, 10].
    """

    segments: Tensor
    constants: Tensor
    tables: Tensor
    plateau_cells: Tensor
    plateaus: Tensor


def pack(by_group: Sequence[Sequence[Segment]]) -> tuple[Tensor, Tensor, Tensor]:
    """Return segments int64 [S, 6], constants fp64 [S, 3] and tables fp64 [T], as in schedule.h.

    Cell 2 g is the rate of group g, and cell 2 g + 1 its momentum. Groups that share a table share
    one copy of it.
    """
    tables: list[float] = []
    starts: dict[int, int] = {}
    integers: list[list[int]] = []
    constants: list[list[float]] = []
    for g, segments in enumerate(by_group):
        for s in segments:
            if s.begin >= FOREVER:
                continue  # never, and beyond an int64
            start, x = -1, s.x
            if not isinstance(x, float):
                if id(x) not in starts:
                    starts[id(x)] = len(tables)
                    tables.extend(x)
                start, x = starts[id(x)], 0.0
            end, every = min(s.end, FOREVER), min(s.every, FOREVER)
            integers.append([2 * g + s.momentum, s.begin, end, every, int(s.absolute), start])
            constants.append([x, s.a, s.b])
    return (
        rows(integers, torch.int64, 6),
        rows(constants, torch.float64, 3),
        tensor(tables, torch.float64),
    )


def rows(values: Sequence[Sequence[float]], dtype: torch.dtype, columns: int) -> Tensor:
    """Return a tensor of so many columns, also if there are no rows."""
    return tensor(values, dtype).reshape(-1, columns)
