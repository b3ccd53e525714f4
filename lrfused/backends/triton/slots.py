"""From param_groups and state to slots, anew at every step; the twin of csrc/gather.h.

Wrappers replace group dicts, parameters, gradients and tensors' memory between steps, so nothing
found in one step is trusted in the next: what is kept are tables, each beside what it was made of.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch import device as Device

from ...arithmetic.masters import has_master
from ...checks import DTYPES, check_numbers
from . import sgd
from .launch import runs_on

NONE, FIRST, NEXT = (mode.value for mode in (sgd.NONE, sgd.FIRST, sgd.NEXT))
BUFFER = "momentum_buffer"
MASTERS = {"master": torch.float32, "master_remainder": torch.int16}
_NUMBERS = ("momentum", "dampening", "weight_decay")
_PLAIN = (Tensor, torch.nn.Parameter)


# As in a row of the table: param, grad, buffer and master (addresses), numel, group, mode.
Row = tuple[int, int, int, int, int, int, int]


class Kind(NamedTuple):
    """Say of parameters what one launch has in common."""

    device: Device
    dtype: torch.dtype
    grad: torch.dtype
    kept: str | None  # what the state calls the master, if it has one

    @property
    def wide(self) -> torch.dtype:
        """Return the dtype that the update is one of, which is the momentum buffer's."""
        return self.dtype if self.kept is None else torch.float32


@dataclass
class Slots:
    """Hold the parameters of one kind, and what the step does with them."""

    params: list[Tensor] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    numels: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)  # among all, with a gradient or without
    ranks: list[int] = field(default_factory=list)  # among those that have a gradient
    # Indices of those that lack something of their state, and whether it is a master, too.
    firsts: list[tuple[int, bool]] = field(default_factory=list)


@dataclass
class Found:
    """Hold all parameters that have a gradient."""

    slots: dict[Kind, Slots] = field(default_factory=dict)
    odd: list[tuple[int, Tensor]] = field(default_factory=list)

    @property
    def devices(self) -> list[Device]:
        """Return the devices of the slots."""
        return list(dict.fromkeys(kind.device for kind in self.slots))

    @property
    def firsts(self) -> bool:
        """Return whether momentum buffers or masters are to be made."""
        return any(slots.firsts for slots in self.slots.values())

    def all_odd(self) -> Found:
        """Return all of them as odd ones."""
        rest = [
            (row[5], p)
            for slots in self.slots.values()
            for p, row in zip(slots.params, slots.rows, strict=True)
        ]
        return Found({}, self.odd + rest)


def gather(
    groups: list[dict[str, Any]], state: dict[Tensor, dict[str, Any]], master: str | None
) -> Found:
    """Sort the parameters that have a gradient into slots and, where they fit none, odd ones.

    `master` is what the state calls the masters of 16-bit parameters.
    """
    found = Found()
    place = rank = -1
    for g, group in enumerate(groups):
        momentum = group["momentum"] != 0
        for p in group["params"]:
            place += 1
            grad = p.grad
            if grad is None:
                continue
            rank += 1
            state_of_p = state.get(p, {})
            buffer = state_of_p.get(BUFFER) if momentum else None
            kept = master if has_master(p, master) else None
            whole = None if kept is None else state_of_p.get(kept)
            if not _fits(p, grad, buffer, kept, whole):
                found.odd.append((g, p))
                continue
            kind = Kind(p.device, p.dtype, grad.dtype, kept)
            own = found.slots.get(kind)
            if own is None:
                own = found.slots[kind] = Slots()
            mode = NONE if not momentum else FIRST if buffer is None else NEXT
            lacks_master = kept is not None and whole is None
            if mode == FIRST or lacks_master:
                own.firsts.append((len(own.params), lacks_master))
            numel = p.numel()
            own.params.append(p)
            own.numels.append(numel)
            own.places.append(place)
            own.ranks.append(rank)
            addresses = (p.data_ptr(), grad.data_ptr(), _address(buffer), _address(whole))
            own.rows.append((*addresses, numel, g, mode))
    return found


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _fits(p: Tensor, grad: Any, buffer: Any, kept: str | None, master: Any) -> bool:
    """Return whether these are plain streams of elements in one memory order."""
    if type(p) not in _PLAIN or p.layout != torch.strided or p.dtype not in DTYPES or p.is_neg():
        return False
    if not runs_on(p.device) or not _dense(p):
        return False
    if kept is None:
        return _lies_beside(grad, p.dtype, p) and (
            buffer is None or _lies_beside(buffer, p.dtype, p)
        )
    single = type(grad) in _PLAIN and grad.dtype == torch.float32
    return (
        (kept == "master" or p.dtype == torch.bfloat16)
        and _lies_beside(grad, torch.float32 if single else p.dtype, p)
        and (buffer is None or _lies_beside(buffer, torch.float32, p))
        and (master is None or _lies_beside(master, MASTERS[kept], p))
    )


def _lies_beside(other: Any, dtype: torch.dtype, p: Tensor) -> bool:
    return (
        type(other) in _PLAIN
        and other.dtype == dtype
        and other.shape == p.shape
        and other.device == p.device
        and other.layout == torch.strided
        and not other.is_neg()
        and (other.stride() == p.stride() or (p.is_contiguous() and other.is_contiguous()))
        and (other.data_ptr() != 0 or other.numel() == 0)  # not zeros that take no memory
    )


def _dense(p: Tensor) -> bool:
    """Return whether the elements fill their memory, in whatever order."""
    if p.is_contiguous():
        return True
    reach = 1
    for stride, size in sorted(zip(p.stride(), p.shape, strict=True)):
        if size != 1 and stride != reach:
            return False
        reach *= size if size != 1 else 1
    return True


def read_groups(
    groups: list[dict[str, Any]], momentum_cells: dict[int, int]
) -> list[tuple[float, ...]]:
    """Give each group's row of the hyper-parameters' table (see step.py).

    `momentum_cells` names the cells of those groups whose momentum a schedule moves. Raises
    TypeError for what is no number.
    """
    if any(type(group[key]) not in (float, int) for group in groups for key in _NUMBERS):
        check_numbers(groups)
    rows: list[tuple[float, ...]] = []
    for g, group in enumerate(groups):
        decay = float(group["weight_decay"])
        row = (
            -1.0 if group["maximize"] else 1.0,
            decay,
            0.0 if g in momentum_cells else float(group["momentum"]),
            1 - float(group["dampening"]),
            float(decay != 0),
            float(bool(group["nesterov"])),
            float(2 * g),
            float(momentum_cells.get(g, -1)),
        )
        rows.append(row)
    return rows


def in_range(rows: list[tuple[float, ...]], cells: list[float]) -> bool:
    """Return whether all numbers are in float32's range; Python's words for it are in checks.py."""
    largest = torch.finfo(torch.float32).max
    numbers: list[float] = []
    for _, decay, momentum, undamped, _, nesterov, rate, cycled in rows:
        if cycled >= 0:
            momentum = cells[int(cycled)]
        numbers += (decay, momentum * nesterov, 1 - undamped, cells[int(rate)])
    return all(abs(x) <= largest or not math.isfinite(x) for x in numbers)
