"""A device's own copy of the schedule, on which Triton's kernels are launched."""

from __future__ import annotations

import torch
from torch import Tensor
from torch import device as Device

from ..device import mirror
from . import schedule
from .launch import launch
from .tables import Tables

_LANES = 1024  # segments, or cells, looked at together


class Mirror(mirror.Mirror):
    """Hold the step's tables beside the schedule's tensors, and launch kernels on both."""

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self.tables: dict[torch.dtype, Tables] = {}

    def tables_of(self, dtype: torch.dtype) -> Tables:
        """Return the tables of a dtype."""
        tables = self.tables.get(dtype)
        if tables is None:
            tables = self.tables[dtype] = Tables(self.device, dtype)
        return tables

    def freeze(self) -> None:
        """Leave the present tables to the graph that was captured with them."""
        self.graphs.extend(self.tables.values())
        self.tables = {}

    def advance(self, groups: int, length: int) -> None:
        """Make one schedule step of every group, with a row of a history of this length."""
        tensors = map(self.__getitem__, _ADVANCE)
        launch(schedule.advance, groups, self.device, *tensors, length, groups, LANES=_LANES)

    def observe(self, metric: Tensor, groups: int, length: int) -> None:
        """Feed every plateau one metric, a double on this device."""
        self.reserve("cuts", 2 * groups, torch.int32)
        tensors = map(self.__getitem__, _OBSERVE)
        launch(schedule.observe, 2 * groups, self.device, *tensors, metric)
        tensors = map(self.__getitem__, _NOTE_CUTS)
        launch(schedule.note_cuts, groups, self.device, *tensors, length, groups, LANES=_LANES)


_ADVANCE = (
    "rates", "epochs", "first segments", "segments", "constants", "tables", "history", "recorded",
)  # fmt: skip
_OBSERVE = ("rates", "first plateaus", "plateaus", "plateau states", "cuts")
_NOTE_CUTS = ("rates", "epochs", "cuts", "history", "recorded")
