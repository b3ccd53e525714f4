"""A schedule as data, run in fp64 on the device; the twin of csrc/schedule.h and csrc/plateau.h.

Cells 2 g and 2 g + 1 are group g's rate and momentum. A cell's segments and plateaus are rows
first[cell] to first[cell + 1] of their tables, in the order in which they apply. The history is a
ring of rows (epoch, whether a plateau cut, rates), of which every group's program writes its own
column, at a counter of its own: no program waits for another.

The schedule has launches of its own, behind the step's. The last block of the step could advance it
and save one, by counting blocks in an atomic; but in older Tritons an atomic does not wait for all
threads of a block (triton-lang/triton#10816): one could read the next step's rate.
"""

import triton
import triton.language as tl


@triton.jit
def is_due(s, epoch, there):
    """Return which of the segments at s apply at this epoch."""
    begin = tl.load(s + 1, there, 0)
    end = tl.load(s + 2, there, 0)
    every = tl.load(s + 3, there, 1)
    since = tl.where(epoch < begin, 0, epoch - begin)
    return there & (epoch >= begin) & (epoch < end) & (since % every == 0)


@triton.jit
def apply(s, c, tables, epoch, lr):
    """Return the rate after one segment that is due, with its constants at c."""
    begin, every, absolute, table = tl.load(s + 1), tl.load(s + 3), tl.load(s + 4), tl.load(s + 5)
    x, a, b = tl.load(c), tl.load(c + 1), tl.load(c + 2)
    x = tl.where(table < 0, x, tl.load(tables + table + (epoch - begin) // every, table >= 0, 0.0))
    return x * tl.where(absolute != 0, a, lr - a) + b


@triton.jit
def remember(history, recorded, length, groups, g, epoch, cut, lr):
    """Store one group's part of the next row."""
    count = tl.load(recorded + g)
    row = history + count % length * (2 + groups)
    if g == 0:
        tl.store(row, epoch.to(tl.float64))
        tl.store(row + 1, cut)
    tl.store(row + 2 + g, lr)
    tl.store(recorded + g, count + 1)


@triton.jit(do_not_specialize=["length", "groups"])
def advance(
    cells, epochs, first, segments, constants, tables, history, recorded, length, groups,
    LANES: tl.constexpr,
):  # fmt: skip
    """Make one schedule step of every group."""
    g = tl.program_id(0)
    epoch = tl.load(epochs + g) + 1
    tl.store(epochs + g, epoch)
    for cell in range(2 * g, 2 * g + 2):
        value = tl.load(cells + cell)
        last = tl.load(first + cell + 1)
        # Few of many segments are due: all are looked at together, and the due ones run in order.
        for start in range(tl.load(first + cell), last, LANES):
            row = start + tl.arange(0, LANES)
            rows = tl.where(is_due(segments + 6 * row, epoch, row < last), row, last)
            i = tl.min(rows, 0)
            while i < last:
                value = apply(segments + 6 * i, constants + 3 * i, tables, epoch, value)
                i = tl.min(tl.where(rows > i, rows, last), 0)
        tl.store(cells + cell, value)
        if cell == 2 * g:
            remember(history, recorded, length, groups, g, epoch, 0.0, value)


@triton.jit
def is_better(maximize, absolute, threshold, metric, best):
    """Return whether a metric is better; NaN compares false, so it never is, whatever the mode."""
    above = metric > tl.where(absolute != 0, best + threshold, best * (threshold + 1.0))
    below = metric < tl.where(absolute != 0, best - threshold, best * (1.0 - threshold))
    return tl.where(maximize != 0, above, below)


@triton.jit
def observe(cells, first, plateaus, states, cuts, metric):
    """Feed every plateau one metric: compare, count, cool down, cut."""
    cell = tl.program_id(0)
    lr = tl.load(cells + cell)
    moved = cell < 0
    for row in range(tl.load(first + cell), tl.load(first + cell + 1)):
        c, s = plateaus + 10 * row, states + 5 * row
        value = tl.load(metric)
        ignored = (tl.load(c + 9) != 0) & (value != value)
        # The mean of several: a sum until there are enough.
        accumulate, old_sum, old_count = tl.load(c + 8), tl.load(s + 3), tl.load(s + 4)
        several = accumulate > 1
        new_sum, new_count = old_sum + value, old_count + 1.0
        deciding = (not ignored) & ((not several) | (new_count >= accumulate))
        taken = several & (not ignored)
        tl.store(s + 3, tl.where(taken, tl.where(deciding, 0.0, new_sum), old_sum))
        tl.store(s + 4, tl.where(taken, tl.where(deciding, 0.0, new_count), old_count))
        if deciding:
            value = tl.where(several, new_sum / new_count, value)
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
            cut = tl.where(cutting & (lr - cut > tl.load(c + 7)), cut, lr)
            moved = moved | (cut < lr) | (cut > lr)
            lr = cut
            tl.store(s, best)
            tl.store(s + 1, num_bad_epochs)
            tl.store(s + 2, cooldown_counter)
    tl.store(cells + cell, lr)
    tl.store(cuts + cell, moved.to(tl.int32))


@triton.jit(do_not_specialize=["length", "groups"])
def note_cuts(
    cells, epochs, cuts, history, recorded, length, groups, LANES: tl.constexpr
):  # fmt: skip
    """Store the rates in the history after a metric that cut any."""
    g = tl.program_id(0)
    moved = 0
    for start in range(0, 2 * groups, LANES):
        cell = start + tl.arange(0, LANES)
        moved += tl.sum(tl.load(cuts + cell, cell < 2 * groups, 0), 0)
    if moved > 0:
        epoch, lr = tl.load(epochs + g), tl.load(cells + 2 * g)
        remember(history, recorded, length, groups, g, epoch, 1.0, lr)
