"""The gather in Python, used where there is no extension; the twin of csrc/gather.h.

It finds what `_C.gather` finds, and returns an object with the same attributes.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...arithmetic.masters import has_master
from ...checks.refusals import DTYPES
from ..base import Groups, State
from . import master, sgd

BUFFER = "momentum_buffer"
_MASTERS = {"master": torch.float32, "master_remainder": torch.int16}
_KEPT = {"master": master.WHOLE.value, "master_remainder": master.REMAINDER.value}
_DTYPES = {dtype: code for code, dtype in enumerate(DTYPES)}
_PLAIN = (Tensor, torch.nn.Parameter)
_LARGEST = torch.finfo(torch.float32).max


@dataclass
class Gathered:
    """Plain tensors of one device type that a step reads and writes; see `_C.Gathered`."""

    valid: bool
    firsts: int = 0
    places: int = 0
    odd: list[tuple[int, Tensor]] = field(default_factory=list)
    params: list[Tensor] = field(default_factory=list)
    buffers: list[Tensor] = field(default_factory=list)
    rows: list[tuple[int, ...]] = field(default_factory=list)

    @property
    def slots(self) -> Tensor:
        """Return the rows as a table, int64 [S, 12]."""
        return torch.tensor(self.rows, dtype=torch.int64, device="cpu").reshape(-1, 12)

    def bump_versions(self) -> None:
        """Bump the versions of `params` and `buffers`, which were written."""
        torch.autograd.graph.increment_version([*self.params, *self.buffers])


def gather(
    groups: Groups, state: State, cells: list[float], key: str | None, device_type: str
) -> Gathered:
    """Find the parameters that have a gradient; `key` is the state's name of their masters."""
    found = Gathered(all(map(_in_range, groups, cells[::2])))
    written: list[tuple[int, int]] = []
    for g, group in enumerate(groups):
        momentum = group["momentum"] != 0
        for p in group["params"]:
            place, grad = found.places, p.grad
            found.places += 1
            if grad is None:
                continue
            own = state.get(p, {})
            buffer = own.get(BUFFER) if momentum else None
            kept = key if has_master(p, key) else None
            whole = None if kept is None else own.get(kept)
            if not found.valid or not _fits(p, grad, buffer, kept, whole, device_type):
                found.odd.append((g, p))
                written.append(_reach(p))
                continue
            mode = sgd.NONE if not momentum else sgd.FIRST if buffer is None else sgd.NEXT
            found.firsts += mode is sgd.FIRST or (kept is not None and whole is None)
            found.params.append(p)
            addresses = [0 if t is None else t.data_ptr() for t in (p, grad, buffer, whole)]
            found.rows.append((
                *addresses, p.numel(), g, mode.value, place,
                _DTYPES[p.dtype], _DTYPES[grad.dtype], master.OWN.value if kept is None else
                _KEPT[kept], max(0, p.get_device()),
            ))  # fmt: skip
            found.buffers += [] if buffer is None else [buffer]
            written += [_extent(t) for t in (p, buffer, whole) if t is not None]
    if found.params and (_refuses_plain() or not _are_apart(written)):
        odd = [(g, p) for g, group in enumerate(groups) for p in group["params"]]
        return Gathered(
            True, places=found.places, odd=[(g, p) for g, p in odd if p.grad is not None]
        )
    return found


def _in_range(group: dict[str, Any], rate: float) -> bool:
    """Return whether a group's numbers are numbers, and in float32's range."""
    keys = ["weight_decay", "dampening", "momentum"]
    try:
        sizes = [math.fabs(group[key]) for key in keys]  # unlike float, this takes no string
    except (TypeError, ValueError, RuntimeError):
        return False
    if not group["nesterov"]:
        sizes.pop()  # as in torch, where momentum alone only multiplies, and may become infinite
    return all(size <= _LARGEST or not math.isfinite(size) for size in (*sizes, abs(rate)))


def _fits(
    p: Tensor, grad: Any, buffer: Any, kept: str | None, whole: Any, device_type: str
) -> bool:
    """Return whether these are plain streams of elements in one memory order."""
    if type(p) not in _PLAIN or p.device.type != device_type or p.dtype not in _DTYPES:
        return False
    if p.layout != torch.strided or p.is_inference() or not _dense(p):
        return False
    if kept == "master_remainder" and p.dtype != torch.bfloat16:
        return False
    wide = p.dtype if kept is None else torch.float32
    return (
        _lies_beside(p, p.dtype, p)
        and (_lies_beside(grad, p.dtype, p) or _lies_beside(grad, wide, p))
        and (buffer is None or _lies_beside(buffer, wide, p))
        and (kept is None or whole is None or _lies_beside(whole, _MASTERS[kept], p))
        and not _share_memory(p, grad, buffer, whole if kept else None)
    )


def _share_memory(p: Tensor, grad: Tensor, buffer: Tensor | None, whole: Tensor | None) -> bool:
    """Return whether a stream that is written shares memory with another one.

    The gradient may be the parameter itself, as each element is read before it is written.
    """
    same = p.data_ptr() == grad.data_ptr() and p.dtype == grad.dtype
    streams = [p] if same else [p, grad]
    return not _are_apart([_extent(t) for t in (*streams, buffer, whole) if t is not None])


def _extent(tensor: Tensor) -> tuple[int, int]:
    """Return where a plain tensor's memory begins and ends."""
    begin = tensor.data_ptr()
    return begin, begin + tensor.numel() * tensor.element_size()


def _reach(tensor: Tensor) -> tuple[int, int]:
    """Return where an odd tensor's memory begins and ends; zeros if it has none of its own."""
    keys = torch._C._dispatch_keys(tensor)
    if tensor.layout != torch.strided or keys.has(torch._C.DispatchKey.Python):
        return 0, 0
    if tensor.numel() == 0 or tensor.untyped_storage().data_ptr() == 0:
        return 0, 0
    pairs = zip(tensor.shape, tensor.stride(), strict=True)
    last = sum((size - 1) * stride for size, stride in pairs)
    begin = tensor.data_ptr()
    return begin, begin + (last + 1) * tensor.element_size()


def _are_apart(extents: list[tuple[int, int]]) -> bool:
    """Return whether no two extents have a byte in common."""
    some = sorted(extent for extent in extents if extent[0] < extent[1])
    return all(a[1] <= b[0] for a, b in itertools.pairwise(some))


def _refuses_plain() -> bool:
    """Return whether torch's own step would raise an error of plain tensors; as in csrc/plain.h."""
    return (
        torch._C._functorch.peek_interpreter_stack() is not None
        or torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is not None
    )


def _lies_beside(other: Any, dtype: torch.dtype, p: Tensor) -> bool:
    return (
        type(other) in _PLAIN
        and other.dtype == dtype
        and other.shape == p.shape
        and other.device == p.device
        and other.layout == torch.strided
        and not other.is_neg()
        and not other.is_inference()
        and (other.stride() == p.stride() or (p.is_contiguous() and other.is_contiguous()))
        and (other.data_ptr() != 0 or other.numel() == 0)  # not zeros that take no memory
        and other.data_ptr() % dtype.itemsize == 0
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
