"""The norm of all gradients: a sum of squares in fp64, always in the same order.

`ordered_sum(x)`: lane j adds x[j], x[j + 128], ... in this order, beginning with 0; then lane j
adds lane j + w, for w = 64, 32, ..., 1, and lane 0 has the sum. A tensor's squares, in memory
order, are summed in pieces of 4096, the pieces' sums are summed, and then the tensors', in the
order of the parameters. A parameter without a gradient has the sum 0. csrc/norm.h has the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..outside_modes import outside_modes, tensor

LANES = 128
PIECE = 4096


def ordered_sum(x: Tensor) -> Tensor:
    """Sum over the last dimension."""
    rows = -(-x.shape[-1] // LANES)
    x = pad(x, (0, rows * LANES - x.shape[-1])).unflatten(-1, (rows, LANES))
    lane = x.new_zeros((*x.shape[:-2], LANES))
    for row in x.unbind(-2):
        lane = lane + row
    while lane.shape[-1] > 1:
        low, high = lane.chunk(2, -1)
        lane = low + high
    return lane.squeeze(-1)


def square_sum(x: Tensor) -> Tensor:
    """Return the sum of the squares of a tensor's elements, an fp64 scalar."""
    squares = in_memory_order(x).double().square()
    if squares.numel() <= PIECE:
        return ordered_sum(squares)
    pieces = -(-squares.numel() // PIECE)
    squares = pad(squares, (0, pieces * PIECE - squares.numel()))
    return ordered_sum(ordered_sum(squares.unflatten(0, (pieces, PIECE))))


@outside_modes
def norm(square_sums: Sequence[float]) -> float:
    """Return the norm of gradients, from the sum of squares of each."""
    return math.sqrt(ordered_sum(tensor(square_sums, torch.float64)).item())


def clip_coefficient(norm: float, max_norm: float) -> float:
    """Return the factor that clips gradients of this norm; NaN stays NaN, as in torch."""
    coefficient = max_norm / (norm + 1e-6)
    return 1.0 if coefficient > 1.0 else coefficient


def in_memory_order(x: Tensor) -> Tensor:
    """Return the elements in memory order; in logical order if they do not fill their memory."""
    return x.as_strided((x.numel(),), (1,)) if is_dense(x) else x.reshape(-1)


def is_dense(x: Tensor) -> bool:
    """Return whether the elements fill their memory without gaps, in any order."""
    if x.is_contiguous():
        return True
    reach = 1
    for stride, size in sorted(zip(x.stride(), x.shape, strict=True)):
        if size != 1 and stride != reach:
            return False
        reach *= size if size != 1 else 1
    return True
