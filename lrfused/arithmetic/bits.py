"""Compare tensors and rates as integers: NaNs count as one, -0.0 differs from 0.0."""

from __future__ import annotations

import struct

import torch
from torch import Tensor

_INTEGERS = {8: torch.int64, 4: torch.int32, 2: torch.int16}


def integers(tensor: Tensor) -> Tensor:
    """Return the bits of a tensor's elements, in order, every NaN the same."""
    flat = tensor.detach().contiguous().reshape(-1)
    return torch.where(flat.isnan(), torch.nan, flat).view(_INTEGERS[tensor.dtype.itemsize])


def difference(got: Tensor, want: Tensor) -> tuple[int, str]:
    """Count the elements that differ, and describe the first: where, and both values."""
    as_is = _INTEGERS[want.dtype.itemsize]
    if torch.equal(got.detach().view(as_is), want.detach().view(as_is)):
        return 0, ""
    ours, theirs = integers(got), integers(want)
    if torch.equal(ours, theirs):
        return 0, ""
    places = (ours != theirs).nonzero().flatten()
    first = int(places[0])
    width = 2 * want.dtype.itemsize
    mask = 16**width - 1
    values = (
        f"{x.detach().reshape(-1)[first].item()!r} (0x{int(bits[first]) & mask:0{width}x})"
        for x, bits in ((got, ours), (want, theirs))
    )
    return places.numel(), f"[{first}] is {next(values)}, should be {next(values)}"


def same_rate(got: float, want: float) -> bool:
    """Return whether two rates are the same fp64 number, every NaN the same."""
    return struct.pack("d", got) == struct.pack("d", want) or (got != got and want != want)


def describe(got: float, want: float) -> str:
    """Describe two fp64 numbers that differ, with their bits."""
    ours, theirs = (f"{x!r} (0x{struct.pack('>d', x).hex()})" for x in (got, want))
    return f"is {ours}, should be {theirs}"
