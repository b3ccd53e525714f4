"""A device's own copy of the schedule, on which Triton's kernels are launched."""

from __future__ import annotations

import torch
from torch import Tensor
from torch import device as Device

from ..device import mirror
from ..device.mirror import image
from . import schedule, terms
from .launch import launch
from .slots import Kind
from .tables import Tables

_LANES = 1024  # segments, or cells, looked at together
_PLAIN = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)


class Mirror(mirror.Mirror):
    """Hold the step's tables beside the schedule's tensors, and launch kernels on both."""

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self.tables: dict[Kind, Tables] = {}

    def tables_of(self, kind: Kind) -> Tables:
        """Return the tables of a kind of parameters."""
        tables = self.tables.get(kind)
        if tables is None:
            tables = self.tables[kind] = Tables(kind)
        return tables

    def freeze(self) -> None:
        """Leave the present tables to the graph that was captured with them."""
        self.graphs.extend(self.tables.values())
        self.tables = {}

    def plain_terms(self, recording: bool) -> Tensor:
        """Return the terms of a step without a GradScaler (see terms.py)."""
        self.put("plain terms", _PLAIN, _PLAIN, recording)
        return self["plain terms"]

    def known_terms(self, inv_scale: float, recording: bool) -> Tensor:
        """Return those of a step that is made, with the scale that the host read."""
        numbers = torch.tensor([inv_scale, 1.0, 0.0], dtype=torch.float64)
        self.put("GradScaler's scale", numbers, image(numbers), recording)
        return self["GradScaler's scale"]

    def found_terms(
        self, grad_scale: Tensor | None, found_inf: Tensor | None, recording: bool
    ) -> Tensor:
        """Return those that GradScaler's numbers, which are on this device, make."""
        here = self.reserve("terms", 3, torch.float64)
        launch(terms.unscale, 1, self.device, grad_scale, found_inf, here)
        if recording:
            self.graphs.extend((grad_scale, found_inf))
        return here

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
