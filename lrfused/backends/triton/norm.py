"""The norm of all gradients, in the order that csrc/norm.h fixes; its twin.

slots    int64  [S, 7]   step.py
pieces   int32  [N, 3]   slot, which of its pieces of 4096 elements, where its sum goes
first    int64  [P + 1]  of each parameter, with a gradient or without, its first piece's sum
limits   fp64   [2]      max_grad_norm; not 0 under a GradScaler, where no infinity may reach a
                         parameter
terms    fp64   [3]      terms.py; without clipping, and with it
"""

import triton
import triton.language as tl

from .numerics import rn, widen
from .step import SLOT, stream

LANES = tl.constexpr(128)
PIECE = tl.constexpr(4096)


@triton.jit
def fold(lane, ROWS: tl.constexpr):
    """Add lane j + w to lane j, for w = 64, 32, ..., 1, in each row; return lane 0."""
    for i in tl.static_range(7):
        lane = tl.sum(tl.reshape(lane, (ROWS, 2, 64 >> i)), 1)  # of two, in which there is no order
    return lane


@triton.jit
def square(grad, inv_scale, G: tl.constexpr, W: tl.constexpr):
    """Return the squares of a gradient stored as G and unscaled as W."""
    M: tl.constexpr = tl.float64 if W == tl.float64 else tl.float32  # opmath
    d = widen(grad, G)
    d = tl.where(inv_scale != 1, rn(inv_scale.to(M) * d, W), d).to(tl.float64)
    return d * d


@triton.jit(do_not_specialize=["count"])
def sum_pieces(
    slots, pieces, terms, sums, count,
    G: tl.constexpr, W: tl.constexpr, ROWS: tl.constexpr, ALIGN: tl.constexpr,
):  # fmt: skip
    """Sum the squares of `count` pieces, each in a row of a tile."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    there = row < count
    s = slots + SLOT * tl.load(pieces + 3 * row, there, 0).to(tl.int64)
    begin = tl.load(pieces + 3 * row + 1, there, 0).to(tl.int64) * PIECE
    left = tl.where(there, tl.load(s + 4) - begin, 0)
    inv_scale = tl.load(terms)
    j = tl.arange(0, LANES)[None, :]
    grad = stream(s + 1, begin + j, G, ALIGN)
    lane = tl.zeros((ROWS, LANES), tl.float64)
    if tl.min(tl.min(left, 1), 0) >= PIECE:
        for i in tl.static_range(0, PIECE, LANES):
            lane += square(tl.load(grad + i), inv_scale, G, W)
    else:
        for i in range(0, tl.minimum(tl.max(tl.max(left, 1), 0), PIECE), LANES):
            lane += square(tl.load(grad + i, i + j < left, 0), inv_scale, G, W)
    tl.store(sums + tl.load(pieces + 3 * row + 2, there, 0), fold(lane, ROWS), there)


@triton.jit(do_not_specialize=["count"])
def sum_parameters(sums_of_pieces, first, sums, count, ROWS: tl.constexpr):
    """Sum the pieces' sums of `count` parameters, each in a row of a tile."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    there = row < count
    begin = tl.load(first + row, there, 0)
    pieces = tl.load(first + row + 1, there, 0) - begin
    j = tl.arange(0, LANES)[None, :]
    lane = tl.zeros((ROWS, LANES), tl.float64)
    for i in range(0, tl.max(tl.max(pieces, 1), 0), LANES):
        lane += tl.load(sums_of_pieces + begin + i + j, i + j < pieces, 0.0)
    tl.store(sums + row, fold(lane, ROWS), there)


@triton.jit(do_not_specialize=["count"])
def clip(sums, limits, terms, clipped, norm, count):
    """Store the norm, and the terms that clip by it; a NaN stays one, as in torch."""
    j = tl.arange(0, LANES)[None, :]
    lane = tl.zeros((1, LANES), tl.float64)
    for i in range(0, count, LANES):
        lane += tl.load(sums + i + j, i + j < count, 0.0)
    total = tl.sqrt(fold(lane, 1))
    one = tl.full((1, 1), 1.0, tl.float64)
    coefficient = tl.load(limits) / (total + tl.full((1, 1), 1e-6, tl.float64))
    skipped = tl.load(terms + 2) * one
    infinite = (tl.load(limits + 1) * one != 0) & (total - total != 0)
    at = tl.arange(0, 1)[:, None]
    tl.store(norm + at, tl.where(skipped != 0, float("nan"), total))  # not taken
    tl.store(clipped + at, tl.load(terms) * one)
    tl.store(clipped + 1 + at, tl.where(coefficient > 1, one, coefficient))
    tl.store(clipped + 2 + at, tl.where(infinite, one, skipped))
