"""A step's slots by kind: the parameters of one kind are updated by one launch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch import device as Device

from ...checks.refusals import DTYPES
from . import master
from .step import SLOT

# Columns of a table of slots, int64 [S, 12]: _C.pyi's `Gathered`.
BUFFER, MASTER, NUMEL, MODE, PLACE, DTYPE, KEPT = 2, 3, 4, 6, 7, 8, 10


class Kind(NamedTuple):
    """Traits that all parameters of one launch share."""

    device: Device
    dtype: torch.dtype
    grad: torch.dtype
    kept: int  # beside a parameter: master.py

    @property
    def wide(self) -> torch.dtype:
        """Return the dtype of the update's results, and of momentum buffers."""
        return self.dtype if self.kept == master.OWN.value else torch.float32


class Slots(NamedTuple):
    """The slots of one kind.

    rows: int64 [S, 7], as step.py reads them. places: int64 [S], of parameters among all.
    """

    rows: Tensor
    places: Tensor

    @property
    def numels(self) -> Tensor:
        """Return how many elements each one has."""
        return self.rows[:, NUMEL]


class Sorter:
    """Sort tables of slots by kind; one that equals the last is not sorted again."""

    def __init__(self) -> None:
        self._kinds = self._slots = torch.empty(0, 0, dtype=torch.int64, device="cpu")
        self._where: dict[Kind, Tensor] = {}
        self._sorted: dict[Kind, Slots] = {}
        self._devices: list[Device] = []

    def take(self, slots: Tensor, device_type: str) -> tuple[Tensor, list[Device]]:
        """Return the slots, as the last table if they equal it, and their devices."""
        if torch.equal(slots, self._slots):
            return self._slots, self._devices
        kinds = slots[:, DTYPE:]
        if not torch.equal(kinds, self._kinds):
            where: dict[Kind, list[int]] = {}
            for i, (dtype, grad, kept, index) in enumerate(kinds.tolist()):
                device = Device("cpu") if device_type == "cpu" else Device(device_type, index)
                where.setdefault(Kind(device, DTYPES[dtype], DTYPES[grad], kept), []).append(i)
            self._where = {kind: torch.tensor(own, device="cpu") for kind, own in where.items()}
            self._devices = list(dict.fromkeys(kind.device for kind in where))
            self._kinds = kinds
        return slots, self._devices

    def sort(self, slots: Tensor) -> dict[Kind, Slots]:
        """Return the slots of each kind, which `take` has returned."""
        if slots is not self._slots:
            parts = {kind: slots[where] for kind, where in self._where.items()}
            width = SLOT.value
            self._sorted = {
                kind: Slots(rows[:, :width].contiguous(), rows[:, PLACE])
                for kind, rows in parts.items()
            }
            self._slots = slots
        return self._sorted
