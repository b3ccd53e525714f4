"""A schedule as data, run in fp64 on the device; the twin of csrc/schedule.h.

Each lane is a cell: a rate, or a momentum that a schedule moves. A cell's segments and plateaus
are rows first[cell] to first[cell + 1] of their tables, in the order in which they apply.
"""

import triton
import triton.language as tl


@triton.jit
def apply(s, c, tables, epoch, lr, there):
    """Run the segment in row s, with constants in row c, on rates: lr = x * (... lr ...) + b."""
    begin = tl.load(s + 1, there, 0)
    end = tl.load(s + 2, there, 0)
    every = tl.load(s + 3, there, 1)
    absolute = tl.load(s + 4, there, 0)
    table = tl.load(s + 5, there, -1)
    x = tl.load(c + 0, there, 0.0)
    a = tl.load(c + 1, there, 0.0)
    b = tl.load(c + 2, there, 0.0)
    due = there & (epoch >= begin) & (epoch < end)
    since = tl.where(due, epoch - begin, 0)
    due = due & (since % every == 0)
    x = tl.where(table < 0, x, tl.load(tables + table + since // every, due & (table >= 0), 0.0))
    return tl.where(due, x * tl.where(absolute != 0, a, lr - a) + b, lr)


@triton.jit(do_not_specialize=["count"])
def advance(cells, epochs, first, segments, constants, tables, count, CELLS: tl.constexpr):
    """Make one schedule step of every cell, of which there are `count`."""
    cell = tl.program_id(0) * CELLS + tl.arange(0, CELLS)
    there = cell < count
    row = tl.load(first + cell, there, 0)
    last = tl.load(first + cell + 1, there, 0)
    epoch = tl.load(epochs + cell, there, 0) + 1
    lr = tl.load(cells + cell, there, 0.0)
    for k in range(tl.max(last - row, 0)):
        i = row + k
        lr = apply(segments + 6 * i, constants + 3 * i, tables, epoch, lr, there & (i < last))
    tl.store(epochs + cell, epoch, there)
    tl.store(cells + cell, lr, there)


@triton.jit
def is_better(maximize, absolute, threshold, metric, best):
    """Say where a metric is better; NaN compares false, so it never is, whatever the mode."""
    above = metric > tl.where(absolute != 0, best + threshold, best * (threshold + 1.0))
    below = metric < tl.where(absolute != 0, best - threshold, best * (1.0 - threshold))
    return tl.where(maximize != 0, above, below)


@triton.jit(do_not_specialize=["count"])
def observe(cells, first, plateaus, states, metric, count, CELLS: tl.constexpr):
    """Feed every plateau one metric: compare, count, cool down, cut."""
    cell = tl.program_id(0) * CELLS + tl.arange(0, CELLS)
    row = tl.load(first + cell, cell < count, 0)
    last = tl.load(first + cell + 1, cell < count, 0)
    lr = tl.load(cells + cell, cell < count, 0.0)
    value = tl.load(metric)
    for k in range(tl.max(last - row, 0)):
        there = (cell < count) & (row + k < last)
        c = plateaus + 8 * (row + k)
        s = states + 3 * (row + k)
        best = tl.load(s + 0, there, 0.0)
        bad = tl.load(s + 1, there, 0.0)
        cooldown = tl.load(s + 2, there, 0.0)
        maximize = tl.load(c + 0, there, 0.0)
        absolute = tl.load(c + 1, there, 0.0)
        better = is_better(maximize, absolute, tl.load(c + 4, there, 0.0), value, best)
        best = tl.where(better, value, best)
        bad = tl.where(better, 0.0, bad + 1.0)
        bad = tl.where(cooldown > 0, 0.0, bad)
        cooldown = tl.where(cooldown > 0, cooldown - 1.0, cooldown)
        cutting = there & (bad > tl.load(c + 3, there, 0.0))
        cooldown = tl.where(cutting, tl.load(c + 5, there, 0.0), cooldown)
        bad = tl.where(cutting, 0.0, bad)
        cut = lr * tl.load(c + 2, there, 0.0)
        min_lr = tl.load(c + 6, there, 0.0)
        cut = tl.where(min_lr > cut, min_lr, cut)  # Python's max
        lr = tl.where(cutting & (lr - cut > tl.load(c + 7, there, 0.0)), cut, lr)
        tl.store(s + 0, best, there)
        tl.store(s + 1, bad, there)
        tl.store(s + 2, cooldown, there)
    tl.store(cells + cell, lr, cell < count)
