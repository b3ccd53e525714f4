"""The tables on the device that the kernels read, uploaded when a pointer moved."""

from __future__ import annotations

import torch
import triton.language as tl
from torch import Tensor
from torch import device as Device

from ..device import transfer
from .kinds import NUMEL, Kind, Slots
from .launch import launch, rows_of_a_tile
from .norm import LANES, PIECE, sum_parameters, sum_pieces
from .step import SLOT, step

TYPES = {
    torch.float32: tl.float32,
    torch.float64: tl.float64,
    torch.bfloat16: tl.bfloat16,
    torch.float16: tl.float16,
}
_WIDEST = 16  # bytes of an access
_THREADS = 128  # of a program


class Tables:
    """The tables of one kind of parameters (step.py), and the rows they were made of."""

    def __init__(self, kind: Kind) -> None:
        self.device, self._kind = kind.device, kind
        self._rows = torch.empty(0, SLOT.value, dtype=torch.int64, device="cpu")
        self._slots = torch.empty(0, SLOT.value, dtype=torch.int64, device=self.device)
        self._chunks = torch.empty(0, 2, dtype=torch.int32, device=self.device)
        self._cols, self._align = 64, _WIDEST

    def holds(self, slots: Slots) -> bool:
        """Return whether there is nothing to upload."""
        return self._rows is slots.rows or torch.equal(self._rows, slots.rows)

    def put(self, slots: Slots) -> None:
        """Upload what differs from the last step's."""
        if self.holds(slots):
            return
        if not torch.equal(self._rows[:, NUMEL], slots.numels):
            self._cols, chunks = cut(slots.numels)
            self._chunks = _uploaded(chunks, self.device)
            self._slots = self._slots.new_empty(slots.rows.shape)
        transfer.upload(self._slots, slots.rows)
        odd_bytes = slots.rows[:, :NUMEL] % _WIDEST
        aligned = torch.equal(odd_bytes, torch.zeros_like(odd_bytes))
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
            T=TYPES[self._kind.dtype], G=TYPES[self._kind.grad], KEPT=self._kind.kept,
            ROWS=rows, COLS=self._cols, ALIGN=self._align,
        )  # fmt: skip

    def sum_pieces(self, pieces: Tensor, terms: Tensor, sums: Tensor) -> None:
        """Launch the kernel that sums the squares of the gradients' pieces: norm.py."""
        grad, count = self._kind.grad, len(pieces)
        tile = _THREADS * _WIDEST // grad.itemsize
        rows = rows_of_a_tile(max(1, count), LANES.value, tile)
        launch(
            sum_pieces, max(1, -(-count // rows)), self.device,
            self._slots, pieces, terms, sums, count,
            G=TYPES[grad], W=TYPES[self._kind.wide], ROWS=rows, ALIGN=self._align,
        )  # fmt: skip


class Sums:
    """Room for the sums of the squares of all gradients on a device: norm.py."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._known: list[tuple[Tensor, Tensor]] = []  # numels and places
        self._pieces: list[Tensor] = []
        self._of_pieces = self._of_parameters = torch.empty(0, dtype=torch.float64, device=device)
        self._first = torch.empty(0, dtype=torch.int64, device=device)

    def holds(self, slots: list[Slots], count: int) -> bool:
        """Return whether there is nothing to upload."""
        return (
            len(self._of_parameters) == count
            and len(self._known) == len(slots)
            and all(
                torch.equal(numels, own.numels) and torch.equal(places, own.places)
                for (numels, places), own in zip(self._known, slots, strict=True)
            )
        )

    def put(self, slots: list[Slots], count: int) -> None:
        """Upload what differs from the last step's; `count` is that of all parameters."""
        if self.holds(slots, count):
            return
        known = [(own.numels, own.places) for own in slots]
        first = torch.zeros(count + 1, dtype=torch.int64, device="cpu")
        chunks = []
        for numels, place in known:
            slot, piece = cut(numels, PIECE.value)[1].T.to(torch.int64)
            first[place + 1] = torch.bincount(slot, minlength=len(place))
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


def cut(numel: Tensor, cols: int | None = None) -> tuple[int, Tensor]:
    """Cut tensors into chunks; return the elements of one, and the chunks as (slot, piece)."""
    if cols is None:
        nonzero = max(1, int((numel > 0).sum()))
        cols = 64 if int(numel.sum()) <= 256 * nonzero else 1024
    pieces = (numel + (cols - 1)) // cols
    slot = torch.repeat_interleave(torch.arange(len(numel), device="cpu"), pieces)
    first = torch.cumsum(pieces, 0) - pieces
    piece = torch.arange(len(slot), device="cpu") - first[slot]
    return cols, torch.stack([slot, piece], 1).to(torch.int32)
