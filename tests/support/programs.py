"""Programs of schedules drawn at random, for those who run them."""

import torch
from hypothesis import strategies as st

from lrfused.program import ProgramTables
from lrfused.rates.moved import Moved
from lrfused.rates.shown import Shown

RATES = st.floats(-10, 10, allow_nan=False)
GROUPS = 3
MOST = 60  # events
SEGMENT = st.tuples(
    st.integers(0, 2 * GROUPS - 1), st.integers(1, 40), st.integers(0, 40), st.integers(1, 9),
    st.booleans(), st.booleans(), RATES, RATES, RATES,
)  # fmt: skip
PLATEAU = st.tuples(
    st.sampled_from([0, 2, 4]), st.booleans(), st.booleans(), st.floats(0.1, 0.99),
    st.integers(0, 3), st.floats(0, 0.5), st.integers(0, 3), st.floats(0, 0.1),
    st.floats(0, 0.01), st.sampled_from([1, 1, 2, 5]), st.booleans(),
)  # fmt: skip


def moved(plateaus=()):
    """Make the tensors that a program moves, with a ring of history that comes round."""
    states = [[-float("inf") if row[1] else float("inf"), 0.0, 0.0, 0.0, 0.0] for row in plateaus]
    return {
        "cells": torch.linspace(0.1, 1.0, 2 * GROUPS, dtype=torch.float64),
        "epochs": torch.zeros(GROUPS, dtype=torch.int64),
        "used": torch.zeros(GROUPS, dtype=torch.float64),
        "history": torch.zeros(7, 2 + GROUPS, dtype=torch.float64),
        "recorded": torch.zeros(1, dtype=torch.int64),
        "plateau_states": torch.tensor(states, dtype=torch.float64).reshape(-1, 5),
        "observed": torch.zeros(1, dtype=torch.int64),
    }


def groups():
    """Return the dicts that a program shows its rates in."""
    return [{"lr": 0.0, "momentum": 0.0} for _ in range(GROUPS)]


def program(make, segments, plateaus):
    """Make a program of random rows on cells of its own, with 64 table entries a segment."""
    cells = moved(plateaus)
    integers, constants = [], []
    for k, (cell, begin, length, every, absolute, table, x, a, b) in enumerate(segments):
        integers.append([cell, begin, begin + length, every, absolute, 64 * k if table else -1])
        constants.append([x, a, b])
    packed = ProgramTables(
        segments=torch.tensor(integers, dtype=torch.int64).reshape(-1, 6),
        constants=torch.tensor(constants, dtype=torch.float64).reshape(-1, 3),
        tables=torch.linspace(-1, 2, 64 * max(1, len(segments)), dtype=torch.float64),
        plateau_cells=torch.tensor([row[0] for row in plateaus], dtype=torch.int64),
        plateaus=torch.tensor([row[1:] for row in plateaus], dtype=torch.float64).reshape(-1, 10),
    )
    shown = Shown(live=True)
    shown.groups[:] = groups()
    shown.rates[:] = [cells["cells"][2 * g] for g in range(3)]
    shown.templates[:] = shown.places[:] = [None] * 3
    return make(Moved(**cells), packed, shown, MOST), cells


# What happens to a program: a schedule step, or a metric.
EVENTS = st.lists(st.none() | st.floats(width=32), min_size=1, max_size=MOST)
