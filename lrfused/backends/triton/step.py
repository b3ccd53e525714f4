"""The step over a pointer table: all tensors of one dtype in one launch; see csrc/step.h.

    slots   int64  [S, 6]   param, grad, buffer (addresses), numel, group, mode
    chunks  int32  [N, 2]   slot, which of its pieces of COLS elements
    hypers  fp64   [G, 9]   Hyper's numbers but the rate; unscale, decay, nesterov; two cells
    used    fp64   [G]      the rates of this step, for whoever asks later

A program updates ROWS chunks, each a row of its tile. The chunks depend on sizes alone, so that
only the short slots are uploaded anew when a pointer moved.
"""

import triton
import triton.language as tl

from .numerics import pack, widen
from .sgd import NEXT, NONE, sgd

SLOT = tl.constexpr(6)
HYPER = tl.constexpr(9)


@triton.jit
def update(
    param, grad, buffer, mode, inside, h, cells,
    T: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """Update one tile of elements, given as pointers; all of them if WHOLE, else those inside."""
    M: tl.constexpr = tl.float64 if T == tl.float64 else tl.float32  # opmath
    momentum = tl.load(h + 2)
    cell = tl.load(h + 8).to(tl.int32)  # of a momentum that a schedule moves, or -1
    momentum = tl.where(cell < 0, momentum, tl.load(cells + cell, cell >= 0, 0.0))
    mode = tl.where((cell >= 0) & (momentum == 0), NONE, mode)  # a cycle may pass through 0
    lr = tl.load(cells + tl.load(h + 7).to(tl.int32))
    if WHOLE:
        p = tl.load(param)
        g = tl.load(grad)
        b = tl.load(buffer, mode == NEXT, 0)
    else:
        p = tl.load(param, inside, 0)
        g = tl.load(grad, inside, 0)
        b = tl.load(buffer, inside & (mode == NEXT), 0)
    p, m = sgd(
        widen(p, T), widen(g, T), widen(b, T), mode,
        tl.load(h).to(M), tl.load(h + 1).to(M), momentum.to(M), tl.load(h + 3).to(M),
        (lr * -1.0).to(M),
        tl.load(h + 4) != 0, tl.load(h + 5) != 0, tl.load(h + 6) != 0,
        T,
    )  # fmt: skip
    if WHOLE:
        tl.store(buffer, pack(m, T), mode != NONE)
        tl.store(param, pack(p, T))
    else:
        tl.store(buffer, pack(m, T), inside & (mode != NONE))
        tl.store(param, pack(p, T), inside)


@triton.jit(do_not_specialize=["count", "groups"])
def step(
    slots, chunks, hypers, cells, used, count, groups,
    T: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, ALIGN: tl.constexpr,
):  # fmt: skip
    """Update `count` chunks; every address is a multiple of ALIGN bytes."""
    if tl.program_id(0) == 0:
        for start in range(0, groups, 1024):
            group = start + tl.arange(0, 1024)
            lr = tl.load(cells + 2 * group, group < groups, 0.0)
            tl.store(used + group, lr, group < groups)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    there = row < count
    s = slots + SLOT * tl.load(chunks + 2 * row, there, 0).to(tl.int64)
    begin = tl.load(chunks + 2 * row + 1, there, 0).to(tl.int64) * COLS
    left = tl.where(there, tl.load(s + 3) - begin, 0)
    cols = tl.arange(0, COLS)[None, :]
    at = begin + cols
    mode = tl.load(s + 5)
    h = hypers + HYPER * tl.load(s + 4)
    P: tl.constexpr = tl.pointer_type(tl.uint16 if T == tl.bfloat16 else T)
    param = tl.multiple_of(tl.load(s).to(P), [ALIGN, ALIGN]) + at
    grad = tl.multiple_of(tl.load(s + 1).to(P), [ALIGN, ALIGN]) + at
    buffer = tl.multiple_of(tl.load(s + 2).to(P), [ALIGN, ALIGN]) + at
    # A comparison with a number from memory keeps accesses narrow; most tiles need none.
    if tl.min(tl.min(left, 1), 0) >= COLS:
        update(param, grad, buffer, mode, cols < left, h, cells, T, True)
    else:
        update(param, grad, buffer, mode, cols < left, h, cells, T, False)
