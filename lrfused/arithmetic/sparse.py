"""Sparse tensors: recognize them, and map a function over their elements."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def is_sparse(*tensors: Tensor | None) -> bool:
    """Return whether a tensor is sparse, in any layout; None is no tensor."""
    return any(t is not None and t.layout != torch.strided for t in tensors)


def map_values(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return a tensor with a function of the elements that are stored; dense or torch.sparse_coo.

    Duplicates in float16 are added up first, as in torch.amp.GradScaler: scaled, they may not
    overflow where their sum does.
    """
    if x.layout == torch.strided:
        return function(x)
    if x.dtype == torch.float16:
        x = x.coalesce()
    return torch.sparse_coo_tensor(
        x._indices(),
        function(x._values()),
        x.shape,
        is_coalesced=x.is_coalesced(),
        check_invariants=False,
    )
