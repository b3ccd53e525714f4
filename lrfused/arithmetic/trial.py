"""Trials of updates with sparse or complex tensors, on stand-ins of a few elements.

torch has no table of the layouts and dtypes that its operations take. An operation that refuses
them in the middle of an update would leave the parameter half updated, so the same operations are
tried first.
"""

from __future__ import annotations

import functools
import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..outside_modes import outside_modes
from .sgd import update

_TAKEN = 32768.0  # in the range of every dtype
_NUMBERS = ("momentum", "dampening", "weight_decay", "nesterov", "maximize")


class Kind(NamedTuple):
    """Traits of a tensor by which torch's operations take or refuse it; sizes are cut to 2."""

    device: torch.device
    dtype: torch.dtype
    layout: torch.layout
    shape: tuple[int, ...]
    dense_dim: int = 0
    entries: int = 0  # at most 2
    coalesced: bool = False

    @classmethod
    def of(cls, x: Tensor, dtype: torch.dtype) -> Kind:
        """Return the kind of a tensor, once it is converted to a dtype."""
        shape = tuple(min(2, size) for size in x.shape)
        if x.layout == torch.strided:
            return cls(x.device, dtype, x.layout, shape)
        is_coo = x.layout == torch.sparse_coo
        return cls(
            x.device, dtype, x.layout, shape, x.dense_dim(), min(2, x._nnz()),
            is_coo and x.is_coalesced(),
        )  # fmt: skip

    def stand_in(self) -> Tensor:
        """Return a small tensor of this kind."""
        if self.layout in (torch.strided, torch.sparse_csr):
            ones = torch.ones(self.shape, device=self.device).to(self.dtype)
            dense = self.layout == torch.strided
            return ones if dense else ones.to_sparse_csr(dense_dim=self.dense_dim)
        if self.layout != torch.sparse_coo:  # torch fails for most sizes
            raise RuntimeError(f"{self.layout} tensors cannot be added")
        sparse_dim = len(self.shape) - self.dense_dim
        rows = [
            [0, min(1, size - 1) if self.coalesced else 0][: self.entries]
            for size in self.shape[:sparse_dim]
        ]
        indices = torch.tensor(rows, dtype=torch.int64, device=self.device)
        values = torch.ones((self.entries, *self.shape[sparse_dim:]), device=self.device)
        return torch.sparse_coo_tensor(
            indices.reshape(sparse_dim, self.entries),
            values.to(self.dtype),
            self.shape,
            is_coalesced=self.coalesced,
            check_invariants=False,
        )


def refused(
    param: Tensor, buffer: Tensor | None, group: dict[str, Any], lr: float, dtype: torch.dtype
) -> Exception | None:
    """Return the error with which torch refuses this update, or None.

    dtype: of the parameter, or of its master.
    """
    assert param.grad is not None
    numbers = tuple(_like(float(group[key])) for key in _NUMBERS)
    kinds = (
        Kind.of(param, dtype),
        Kind.of(param.grad, dtype),
        None if buffer is None else Kind.of(buffer, dtype),
    )
    return _refused(*kinds, numbers, _like(lr))


def _like(number: float) -> float:
    """Return a number that torch takes or refuses alike, and the same one for most rates."""
    return 1.0 if 0 < abs(number) <= _TAKEN else number


@functools.lru_cache(256)
@outside_modes
@torch.no_grad()
def _refused(
    param: Kind, grad: Kind, buffer: Kind | None, numbers: tuple[float, ...], lr: float
) -> Exception | None:
    group = dict(zip(_NUMBERS, numbers, strict=True))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the update itself gives them
            update(
                param.stand_in(),
                grad.stand_in(),
                None if buffer is None else buffer.stand_in(),
                group,
                lr,
            )
    except Exception as error:  # whatever torch raises is the answer
        return error.with_traceback(None)
    return None
