"""A schedule as data, run in fp64 on the device; the twin of csrc/schedule.h.

A program has one cell: a rate, or a momentum that a schedule moves. The cell's segments and
plateaus are rows first[cell] to first[cell + 1] of their tables, in the order in which they apply.

The schedule has launches of its own, behind the step's. The last block of the step could advance it
and save one, by counting blocks in an atomic; but in older Tritons an atomic does not wait for all
threads of a block (triton-lang/triton#10816): one could read the next step's rate.
"""

import triton
import triton.language as tl


@triton.jit
def is_due(s, epoch, there):
    """Say which of the segments at s apply at this epoch."""
    begin = tl.load(s + 1, there, 0)
    end = tl.load(s + 2, there, 0)
    every = tl.load(s + 3, there, 1)
    since = tl.where(epoch < begin, 0, epoch - begin)
    return there & (epoch >= begin) & (epoch < end) & (since % every == 0)


@triton.jit
def apply(s, c, tables, epoch, lr):
    """Apply one segment that is due, with its constants at c."""
    begin, every, absolute, table = tl.load(s + 1), tl.load(s + 3), tl.load(s + 4), tl.load(s + 5)
    x, a, b = tl.load(c), tl.load(c + 1), tl.load(c + 2)
    x = tl.where(table < 0, x, tl.load(tables + table + (epoch - begin) // every, table >= 0, 0.0))
    return x * tl.where(absolute != 0, a, lr - a) + b


@triton.jit
def advance(cells, epochs, first, segments, constants, tables, LANES: tl.constexpr):
    """Make one schedule step of every cell."""
    cell = tl.program_id(0)
    epoch = tl.load(epochs + cell) + 1
    lr = tl.load(cells + cell)
    last = tl.load(first + cell + 1)
    # Few of many segments are due: all are looked at together, and the due ones run in order.
    for start in range(tl.load(first + cell), last, LANES):
        row = start + tl.arange(0, LANES)
        rows = tl.where(is_due(segments + 6 * row, epoch, row < last), row, last)
        i = tl.min(rows, 0)
        while i < last:
            lr = apply(segments + 6 * i, constants + 3 * i, tables, epoch, lr)
            i = tl.min(tl.where(rows > i, rows, last), 0)
    tl.store(epochs + cell, epoch)
    tl.store(cells + cell, lr)


@triton.jit
def is_better(maximize, absolute, threshold, metric, best):
    """Say whether a metric is better; NaN compares false, so it never is, whatever the mode."""
    above = metric > tl.where(absolute != 0, best + threshold, best * (threshold + 1.0))
    below = metric < tl.where(absolute != 0, best - threshold, best * (1.0 - threshold))
    return tl.where(maximize != 0, above, below)


@triton.jit
def observe(cells, first, plateaus, states, metric):
    """Feed every plateau one metric: compare, count, cool down, cut."""
    cell = tl.program_id(0)
    value = tl.load(metric)
    lr = tl.load(cells + cell)
    for row in range(tl.load(first + cell), tl.load(first + cell + 1)):
        c, s = plateaus + 8 * row, states + 3 * row
        best, num_bad_epochs, cooldown_counter = tl.load(s), tl.load(s + 1), tl.load(s + 2)
        better = is_better(tl.load(c), tl.load(c + 1), tl.load(c + 4), value, best)
        best = tl.where(better, value, best)
        num_bad_epochs = tl.where(better, 0.0, num_bad_epochs + 1.0)
        cooling = cooldown_counter > 0
        cooldown_counter = tl.where(cooling, cooldown_counter - 1.0, cooldown_counter)
        num_bad_epochs = tl.where(cooling, 0.0, num_bad_epochs)
        cutting = num_bad_epochs > tl.load(c + 3)
        cooldown_counter = tl.where(cutting, tl.load(c + 5), cooldown_counter)
        num_bad_epochs = tl.where(cutting, 0.0, num_bad_epochs)
        cut, min_lr = lr * tl.load(c + 2), tl.load(c + 6)
        cut = tl.where(min_lr > cut, min_lr, cut)  # Python's max: the first unless larger
        lr = tl.where(cutting & (lr - cut > tl.load(c + 7)), cut, lr)
        tl.store(s, best)
        tl.store(s + 1, num_bad_epochs)
        tl.store(s + 2, cooldown_counter)
    tl.store(cells + cell, lr)
