"""Compare tensors and rates as integers: NaNs count as one, -0.0 differs from 0.0."""

import struct
from collections.abc import Sequence

import torch
from torch import Tensor

INTEGERS = {
    torch.float64: torch.int64,
    torch.float32: torch.int32,
    torch.bfloat16: torch.int16,
    torch.float16: torch.int16,
    torch.complex64: torch.int64,
}


def as_integers(tensor: Tensor) -> Tensor:
    """Give the bits of a tensor in logical order, every NaN the same."""
    flat = tensor.detach().resolve_neg().contiguous().reshape(-1)
    one_nan = torch.full_like(flat, torch.nan)
    return torch.where(flat.isnan(), one_nan, flat).view(INTEGERS[tensor.dtype]).cpu()


def assert_same_bits(got: Tensor, want: Tensor, what: str = "tensor") -> None:
    """Fail with the first index where two tensors differ, and both values there."""
    assert got.dtype == want.dtype, f"{what}: {got.dtype} is not {want.dtype}"
    assert got.shape == want.shape, f"{what}: {tuple(got.shape)} is not {tuple(want.shape)}"
    ours, theirs = as_integers(got), as_integers(want)
    if torch.equal(ours, theirs):
        return
    differ = (ours != theirs).nonzero().flatten()
    first = int(differ[0])
    mask = 256 ** want.element_size() - 1
    raise AssertionError(
        f"{what}: {differ.numel()} of {ours.numel()} elements differ, the first at {first}: "
        f"got {got.detach().reshape(-1)[first].item()!r} (0x{int(ours[first]) & mask:x}), "
        f"want {want.detach().reshape(-1)[first].item()!r} (0x{int(theirs[first]) & mask:x})"
    )


def differ(got: Tensor, want: Tensor) -> bool:
    """Return whether any bit differs."""
    return not torch.equal(as_integers(got), as_integers(want))


def rate_bits(rate: float) -> bytes:
    """Give the eight bytes of a rate, every NaN the same."""
    return struct.pack("<d", rate if rate == rate else float("nan"))


def assert_same_rates(got: Sequence[float], want: Sequence[float], what: str = "rates") -> None:
    """Fail with the first group whose two rates differ in any bit."""
    assert len(got) == len(want), f"{what}: {len(got)} groups, want {len(want)}"
    form = f"<{len(want)}d"
    if struct.pack(form, *got) == struct.pack(form, *want):
        return
    for group, (ours, theirs) in enumerate(zip(got, want, strict=True)):
        if rate_bits(float(ours)) != rate_bits(float(theirs)):
            raise AssertionError(f"{what}, group {group}: got {ours!r}, want {theirs!r}")
