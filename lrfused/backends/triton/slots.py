"""From param_groups and state to slots, anew at every step; the twin of csrc/gather.h.

Wrappers replace group dicts, parameters, gradients and tensors' memory between steps, so nothing
found in one step is trusted in the next: what is kept are tables, each beside what it was made of.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch import device as Device

from ...checks import DTYPES, check_numbers
from . import sgd
from .launch import runs_on

NONE, FIRST, NEXT = (mode.value for mode in (sgd.NONE, sgd.FIRST, sgd.NEXT))
_NUMBERS = ("momentum", "dampening", "weight_decay")
_PLAIN = (Tensor, torch.nn.Parameter)


@dataclass
class Slots:
    """Hold the parameters of one dtype on one device, and what the step does with them."""

    params: list[Tensor] = field(default_factory=list)
    # Of each parameter, as in a row of the table.
    rows: list[tuple[int, int, int, int, int, int]] = field(default_factory=list)
    places: list[int] = field(default_factory=list)  # among all that have a gradient
    firsts: list[int] = field(default_factory=list)  # indices of those without a buffer


@dataclass
class Found:
    """Hold all parameters that have a gradient."""

    slots: dict[tuple[Device, torch.dtype], Slots] = field(default_factory=dict)
    odd: list[tuple[int, Tensor]] = field(default_factory=list)

    @property
    def devices(self) -> list[Device]:
        """Return the devices of the slots."""
        return list(dict.fromkeys(device for device, _ in self.slots))

    def all_odd(self) -> Found:
        """Return all of them as odd ones."""
        rest = [
            (row[4], p)
            for slots in self.slots.values()
            for p, row in zip(slots.params, slots.rows, strict=True)
        ]
        return Found({}, self.odd + rest)


def gather(groups: list[dict[str, Any]], state: dict[Tensor, dict[str, Any]]) -> Found:
    """Sort the parameters that have a gradient into slots and, where they fit none, odd ones."""
    found = Found()
    place = -1
    for g, group in enumerate(groups):
        momentum = group["momentum"] != 0
        for p in group["params"]:
            grad = p.grad
            if grad is None:
                continue
            place += 1
            buffer = None
            if momentum and p in state:
                buffer = state[p].get("momentum_buffer")
            if not _fits(p, grad, buffer):
                found.odd.append((g, p))
                continue
            key = (p.device, p.dtype)
            own = found.slots.get(key)
            if own is None:
                own = found.slots[key] = Slots()
            mode = NONE if not momentum else FIRST if buffer is None else NEXT
            if mode == FIRST:
                own.firsts.append(len(own.params))
            address = 0 if buffer is None else buffer.data_ptr()
            own.params.append(p)
            own.places.append(place)
            own.rows.append((p.data_ptr(), grad.data_ptr(), address, p.numel(), g, mode))
    return found


def _fits(p: Tensor, grad: Any, buffer: Any) -> bool:
    """Say whether these are plain streams of elements in one memory order."""
    if type(p) not in _PLAIN or p.layout != torch.strided or p.dtype not in DTYPES or p.is_neg():
        return False
    if not runs_on(p.device) or not _dense(p):
        return False
    others = (grad,) if buffer is None else (grad, buffer)
    stride, plain = p.stride(), p.is_contiguous()
    for other in others:
        if (
            type(other) not in _PLAIN
            or other.dtype != p.dtype
            or other.shape != p.shape
            or other.device != p.device
            or other.layout != torch.strided
            or other.is_neg()
            or not (other.stride() == stride or (plain and other.is_contiguous()))
            or (other.data_ptr() == 0 and other.numel() != 0)  # zeros that take no memory
        ):
            return False
    return True


def _dense(p: Tensor) -> bool:
    """Say whether the elements fill their memory, in whatever order."""
    if p.is_contiguous():
        return True
    reach = 1
    for stride, size in sorted(zip(p.stride(), p.shape, strict=True)):
        if size != 1 and stride != reach:
            return False
        reach *= size if size != 1 else 1
    return True


def read_groups(
    groups: list[dict[str, Any]], inv_scale: float, momentum_cells: dict[int, int]
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
            -inv_scale if group["maximize"] else inv_scale,
            decay,
            0.0 if g in momentum_cells else float(group["momentum"]),
            1 - float(group["dampening"]),
            float(inv_scale != 1),
            float(decay != 0),
            float(bool(group["nesterov"])),
            float(2 * g),
            float(momentum_cells.get(g, -1)),
        )
        rows.append(row)
    return rows


def in_range(rows: list[tuple[float, ...]], cells: list[float]) -> bool:
    """Say whether all numbers are in float32's range; Python's words for it are in checks.py."""
    largest = torch.finfo(torch.float32).max
    numbers: list[float] = []
    for _, decay, momentum, undamped, _, _, nesterov, rate, cycled in rows:
        if cycled >= 0:
            momentum = cells[int(cycled)]
        numbers += (decay, momentum * nesterov, 1 - undamped, cells[int(rate)])
    return all(abs(x) <= largest or not math.isfinite(x) for x in numbers)
