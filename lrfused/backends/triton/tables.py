"""The tables on the device that the kernels read, uploaded when a pointer moved."""

from __future__ import annotations

import torch
import triton.language as tl
from torch import Tensor
from torch import device as Device

from ..device import transfer
from . import master
from .launch import launch, rows_of_a_tile
from .norm import LANES, PIECE, sum_parameters, sum_pieces
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
_THREADS = 128  # of a program


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
        """Return whether there is nothing to upload."""
        return self._rows is slots.rows or self._rows == slots.rows

    def put(self, slots: Slots) -> None:
        """Upload what differs from the last step's."""
        if self.holds(slots):
            return
        if self._numels != slots.numels:
            self._cols, chunks = cut(slots.numels)
            self._chunks = _uploaded(chunks, self.device)
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

    def sum_pieces(self, pieces: Tensor, terms: Tensor, sums: Tensor) -> None:
        """Sum the squares of the gradients' pieces (see norm.py)."""
        grad, count = self._kind.grad, len(pieces)
        tile = _THREADS * _WIDEST // grad.itemsize
        rows = rows_of_a_tile(max(1, count), LANES.value, tile)
        launch(
            sum_pieces, max(1, -(-count // rows)), self.device,
            self._slots, pieces, terms, sums, count,
            G=TYPES[grad], W=TYPES[self._kind.wide], ROWS=rows, ALIGN=self._align,
        )  # fmt: skip


class Sums:
    """Hold where the sums of all gradients' squares on a device go (see norm.py)."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._known: list[tuple[list[int], list[int]]] = []
        self._pieces: list[Tensor] = []
        self._of_pieces = self._of_parameters = torch.empty(0, dtype=torch.float64, device=device)
        self._first = torch.empty(0, dtype=torch.int64, device=device)

    def holds(self, slots: list[Slots], count: int) -> bool:
        """Return whether there is nothing to upload."""
        sizes = [(own.numels, own.places) for own in slots]
        return len(self._of_parameters) == count and self._known == sizes

    def put(self, slots: list[Slots], count: int) -> None:
        """Upload what differs from the last step's; `count` is that of all parameters."""
        if self.holds(slots, count):
            return
        known = [(own.numels, own.places) for own in slots]
        first = torch.zeros(count + 1, dtype=torch.int64)
        chunks = []
        for numels, places in known:
            slot, piece = cut(numels, PIECE.value)[1].T.to(torch.int64)
            place = torch.tensor(places, dtype=torch.int64)
            first[place + 1] = torch.bincount(slot, minlength=len(places))
            chunks.append((slot, piece, place[slot]))
        first = torch.cumsum(first, 0)
        self._pieces = [
            _uploaded(torch.stack([slot, piece, first[place] + piece], 1).int(), self._device)
            for slot, piece, place in chunks
        ]
        self._first = _uploaded(first, self._device)
        self._of_pieces = self._of_pieces.new_empty(int(first[-1]))
        self._of_parameters = self._of_parameters.new_empty(count)
        self._known = known

    def launch(self, tables: list[Tables], terms: Tensor) -> Tensor:
        """Return the sums of all parameters; those of the tables are in the order of the slots."""
        for own, pieces in zip(tables, self._pieces, strict=True):
            own.sum_pieces(pieces, terms, self._of_pieces)
        count = len(self._of_parameters)
        rows = rows_of_a_tile(count, LANES.value, 4 * LANES.value)
        launch(
            sum_parameters, -(-count // rows), self._device,
            self._of_pieces, self._first, self._of_parameters, count, ROWS=rows,
        )  # fmt: skip
        return self._of_parameters


def _uploaded(host: Tensor, device: Device) -> Tensor:
    there = torch.empty_like(host, device=device)
    transfer.upload(there, host)
    return there


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
