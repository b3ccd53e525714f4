"""The tables on the device that the step kernel reads, uploaded when a pointer moved."""

from __future__ import annotations

import torch
import triton.language as tl
from torch import Tensor

from ..device import transfer
from . import master
from .launch import launch, rows_of_a_tile
from .slots import Kind, Row, Slots
from .step import SLOT, step

TYPES = {
    torch.float32: tl.float32,
    torch.float64: tl.float64,
    torch.bfloat16: tl.bfloat16,
    torch.float16: tl.float16,
}
_KEPT = {
    None: master.OWN.value,
    "master": master.WHOLE.value,
    "master_remainder": master.REMAINDER.value,
}
_WIDEST = 16  # bytes of an access


class Tables:
    """Hold the tables of one kind of parameters (see step.py), and what they were made of."""

    def __init__(self, kind: Kind) -> None:
        self.device, self._kind = kind.device, kind
        self._rows: list[Row] = []
        self._numels: list[int] = []
        self._slots = torch.empty(0, SLOT.value, dtype=torch.int64, device=self.device)
        self._chunks = torch.empty(0, 2, dtype=torch.int32, device=self.device)
        self._cols, self._align = 64, _WIDEST

    def holds(self, slots: Slots) -> bool:
        """Say whether there is nothing to upload."""
        return self._rows is slots.rows or self._rows == slots.rows

    def put(self, slots: Slots) -> None:
        """Upload what differs from the last step's."""
        if self.holds(slots):
            return
        if self._numels != slots.numels:
            self._cols, chunks = cut(slots.numels)
            self._chunks = torch.empty_like(chunks, device=self.device)
            transfer.upload(self._chunks, chunks)
            self._slots = self._slots.new_empty(len(slots.numels), SLOT.value)
            self._numels = slots.numels
        transfer.upload(self._slots, torch.tensor(slots.rows, dtype=torch.int64))
        aligned = all((row[0] | row[1] | row[2] | row[3]) % _WIDEST == 0 for row in slots.rows)
        self._align = _WIDEST if aligned else self._kind.dtype.itemsize
        self._rows = slots.rows

    def launch(
        self, hypers: Tensor, cells: Tensor, terms: Tensor, used: Tensor, groups: int
    ) -> None:
        """Update every parameter in the tables, and note the rates used."""
        count = len(self._chunks)
        rows = rows_of_a_tile(max(1, count), self._cols)
        launch(
            step, max(1, -(-count // rows)), self.device,
            self._slots, self._chunks, hypers, cells, terms, used, count, groups,
            T=TYPES[self._kind.dtype], G=TYPES[self._kind.grad], KEPT=_KEPT[self._kind.kept],
            ROWS=rows, COLS=self._cols, ALIGN=self._align,
        )  # fmt: skip


def cut(numels: list[int], cols: int | None = None) -> tuple[int, Tensor]:
    """Cut tensors into chunks; return the elements of one, and the chunks as (slot, piece)."""
    numel = torch.tensor(numels, dtype=torch.int64)
    if cols is None:
        nonzero = max(1, int((numel > 0).sum()))
        cols = 64 if int(numel.sum()) <= 256 * nonzero else 1024
    pieces = (numel + (cols - 1)) // cols
    slot = torch.repeat_interleave(torch.arange(len(numels)), pieces)
    first = torch.cumsum(pieces, 0) - pieces
    piece = torch.arange(len(slot)) - first[slot]
    return cols, torch.stack([slot, piece], 1).to(torch.int32)
