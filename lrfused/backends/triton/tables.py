"""The tables on the device that the step kernel reads, uploaded when a pointer moved."""

from __future__ import annotations

import torch
import triton.language as tl
from torch import Tensor
from torch import device as Device

from ..device import transfer
from .launch import launch, rows_of_a_tile
from .slots import Slots
from .step import step

_TYPES = {
    torch.float32: tl.float32,
    torch.float64: tl.float64,
    torch.bfloat16: tl.bfloat16,
    torch.float16: tl.float16,
}
_WIDEST = 16  # bytes of an access


class Tables:
    """Hold the tables of one dtype on one device (see step.py), and what they were made of."""

    def __init__(self, device: Device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self._rows: list[tuple[int, int, int, int, int, int]] = []
        self._numels: list[int] = []
        self._slots = torch.empty(0, 6, dtype=torch.int64, device=device)
        self._chunks = torch.empty(0, 2, dtype=torch.int32, device=device)
        self._cols, self._align = 64, _WIDEST

    def holds(self, slots: Slots) -> bool:
        """Say whether there is nothing to upload."""
        return self._rows is slots.rows or self._rows == slots.rows

    def put(self, slots: Slots) -> None:
        """Upload what differs from the last step's."""
        if self.holds(slots):
            return
        numels = [row[3] for row in slots.rows]
        if numels != self._numels:
            self._cols, chunks = cut(numels)
            self._chunks = torch.empty_like(chunks, device=self.device)
            transfer.upload(self._chunks, chunks)
            self._slots = self._slots.new_empty(len(numels), 6)
            self._numels = numels
        transfer.upload(self._slots, torch.tensor(slots.rows, dtype=torch.int64))
        aligned = all((row[0] | row[1] | row[2]) % _WIDEST == 0 for row in slots.rows)
        self._align = _WIDEST if aligned else self.dtype.itemsize
        self._rows = slots.rows

    def launch(self, hypers: Tensor, cells: Tensor, used: Tensor, groups: int) -> None:
        """Update every parameter in the tables, and note the rates used."""
        count = len(self._chunks)
        rows = rows_of_a_tile(max(1, count), self._cols)
        launch(
            step, max(1, -(-count // rows)), self.device,
            self._slots, self._chunks, hypers, cells, used, count, groups,
            T=_TYPES[self.dtype], ROWS=rows, COLS=self._cols, ALIGN=self._align,
        )  # fmt: skip


def cut(numels: list[int]) -> tuple[int, Tensor]:
    """Cut tensors into chunks; return the elements of one, and the chunks as (slot, piece)."""
    numel = torch.tensor(numels, dtype=torch.int64)
    nonzero = max(1, int((numel > 0).sum()))
    cols = 64 if int(numel.sum()) <= 256 * nonzero else 1024
    pieces = (numel + (cols - 1)) // cols
    slot = torch.repeat_interleave(torch.arange(len(numels)), pieces)
    first = torch.cumsum(pieces, 0) - pieces
    piece = torch.arange(len(slot)) - first[slot]
    return cols, torch.stack([slot, piece], 1).to(torch.int32)
