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
}
INDICES = {
    torch.sparse_coo: (Tensor._indices, Tensor.is_coalesced),
    torch.sparse_csr: (Tensor.crow_indices, Tensor.col_indices),
}


def elements(tensor: Tensor) -> Tensor:
    """Return the numbers that a tensor stores; two for a complex one."""
    tensor = tensor.detach()
    if tensor.layout != torch.strided:
        coo = tensor.layout == torch.sparse_coo
        tensor = tensor._values() if coo else tensor.values().clone()
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def as_integers(tensor: Tensor) -> Tensor:
    """Return the bits of a tensor in logical order, every NaN the same."""
    flat = elements(tensor).resolve_neg().contiguous().reshape(-1)
    if not flat.is_floating_point():
        return flat.cpu()
    one_nan = torch.full_like(flat, torch.nan)
    return torch.where(flat.isnan(), one_nan, flat).view(INTEGERS[flat.dtype]).cpu()


def assert_same_bits(got: Tensor, want: Tensor, what: str = "tensor") -> None:
    """Fail with the first index where two tensors differ, and both values there."""
    assert got.dtype == want.dtype, f"{what}: {got.dtype} is not {want.dtype}"
    assert got.shape == want.shape, f"{what}: {tuple(got.shape)} is not {tuple(want.shape)}"
    assert got.layout == want.layout, f"{what}: {got.layout} is not {want.layout}"
    for read in INDICES.get(want.layout, ()):
        mine, other = (torch.as_tensor(read(t.detach())) for t in (got, want))
        assert torch.equal(mine, other), f"{what}: {mine} is not {other}"
    ours, theirs = as_integers(got), as_integers(want)
    if torch.equal(ours, theirs):
        return
    got, want = elements(got), elements(want)
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
    """Return the eight bytes of a rate, every NaN the same."""
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
