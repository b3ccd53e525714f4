"""The step over a pointer table: all tensors of one kind in one launch; see csrc/slot.h.

    slots   int64  [S, 7]   param, grad, buffer, master (addresses), numel, group, mode
    chunks  int32  [N, 2]   slot, which of its pieces of COLS elements
    hypers  fp64   [G, 8]   hypers.py
    terms   fp64   [3]      terms.py
    used    fp64   [G]      the rates of this step

A program updates ROWS chunks, each a row of its tile. The chunks depend on sizes alone, so that
only the short slots are uploaded anew when a pointer moved.
"""

import triton
import triton.language as tl

from .master import OWN, REMAINDER, read, write
from .numerics import pack, widen
from .sgd import NEXT, NONE, sgd

SLOT = tl.constexpr(7)
HYPER = tl.constexpr(8)


@triton.jit
def update(
    param, grad, buffer, master, mode, inside, h, cells, terms,
    T: tl.constexpr, G: tl.constexpr, KEPT: tl.constexpr,
):  # fmt: skip
    """Update one tile of elements, given as pointers: those inside, all where it is None."""
    W: tl.constexpr = T if KEPT == OWN else tl.float32  # of the results, and of buffers
    M: tl.constexpr = tl.float64 if W == tl.float64 else tl.float32  # opmath
    momentum = tl.load(h + 2)
    cell = tl.load(h + 7).to(tl.int32)  # of a momentum that a schedule moves, or -1
    momentum = tl.where(cell < 0, momentum, tl.load(cells + cell, cell >= 0, 0.0))
    mode = tl.where((cell >= 0) & (momentum == 0), NONE, mode)  # a cycle may pass through 0
    lr = tl.load(cells + tl.load(h + 6).to(tl.int32))
    inv_scale, clip = tl.load(terms), tl.load(terms + 1)
    moved, kept = mode == NEXT, mode != NONE
    if inside is not None:
        moved, kept = inside & moved, inside & kept
    p, m = sgd(
        read(param, master, inside, T, KEPT), widen(tl.load(grad, inside), G),
        widen(tl.load(buffer, moved, 0), W), mode,
        (tl.load(h) * inv_scale).to(M), clip.to(M),
        tl.load(h + 1).to(M), momentum.to(M), tl.load(h + 3).to(M), (lr * -1.0).to(M),
        inv_scale != 1, clip != 1, tl.load(h + 4) != 0, tl.load(h + 5) != 0,
        W,
    )  # fmt: skip
    tl.store(buffer, pack(m, W), kept)
    write(p, param, master, inside, T, KEPT)


@triton.jit
def stream(address, at, T: tl.constexpr, ALIGN: tl.constexpr):
    """Return pointers to elements stored as T; a bfloat16 is stored as its bits, a uint16."""
    P: tl.constexpr = tl.pointer_type(tl.uint16 if T == tl.bfloat16 else T)
    return tl.multiple_of(tl.load(address).to(P), [ALIGN, ALIGN]) + at


@triton.jit(do_not_specialize=["count", "groups"])
def step(
    slots, chunks, hypers, cells, terms, used, count, groups,
    T: tl.constexpr, G: tl.constexpr, KEPT: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, ALIGN: tl.constexpr,
):  # fmt: skip
    """Update `count` chunks of parameters of T and gradients of G, at multiples of ALIGN bytes."""
    B: tl.constexpr = T if KEPT == OWN else tl.float32  # of buffers
    K: tl.constexpr = tl.int16 if KEPT == REMAINDER else tl.float32  # of masters
    if tl.program_id(0) == 0:
        for start in range(0, groups, 1024):
            group = start + tl.arange(0, 1024)
            lr = tl.load(cells + 2 * group, group < groups, 0.0)
            tl.store(used + group, lr, group < groups)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    there = row < tl.where(tl.load(terms + 2) == 0, count, 0)
    s = slots + SLOT * tl.load(chunks + 2 * row, there, 0).to(tl.int64)
    begin = tl.load(chunks + 2 * row + 1, there, 0).to(tl.int64) * COLS
    left = tl.where(there, tl.load(s + 4) - begin, 0)
    cols = tl.arange(0, COLS)[None, :]
    at = begin + cols
    mode = tl.load(s + 6)
    h = hypers + HYPER * tl.load(s + 5)
    param, grad = stream(s, at, T, ALIGN), stream(s + 1, at, G, ALIGN)
    buffer, master = stream(s + 2, at, B, ALIGN), stream(s + 3, at, K, ALIGN)
    # A comparison with a number from memory keeps accesses narrow; most tiles need none.
    if tl.min(tl.min(left, 1), 0) >= COLS:
        update(param, grad, buffer, master, mode, None, h, cells, terms, T, G, KEPT)
    else:
        update(param, grad, buffer, master, mode, cols < left, h, cells, terms, T, G, KEPT)
