"""The seams of the engine: units of work, and programs run by both of their twins."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lrfused.backends import available, reference

if available()["compiled"]:
    pytest.skip(f"no compiled backend: {available()['compiled']}", allow_module_level=True)

from lrfused import _C

KUNIT = 16384
NUMELS = st.lists(
    st.sampled_from([0, 1, 7, 64, KUNIT - 1, KUNIT, KUNIT + 1, 3 * KUNIT, 100_003]), max_size=40
)


@settings(deadline=None, derandomize=True)
@given(NUMELS)
def test_units_cover_every_element_once_and_in_order(numels):
    covered = []
    for first, last, begin, end in _C.units_of(numels):
        assert last > first
        if last == first + 1:
            covered.append((first, begin, end))
        else:
            covered += [(i, 0, numels[i]) for i in range(first, last)]
        assert sum(e - b for _, b, e in covered[-(last - first) :]) <= 2 * KUNIT
    reached = [0] * len(numels)
    for i, begin, end in covered:
        assert begin == reached[i]
        reached[i] = end
    assert reached == numels
    assert [i for i, *_ in covered] == sorted(i for i, *_ in covered)


RATES = st.floats(-10, 10, allow_nan=False)
GROUPS = 3
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
    }


def program(make, segments, plateaus):
    """Make a program of random rows on cells of its own, with 64 table entries a segment."""
    cells = moved(plateaus)
    integers, constants = [], []
    for k, (cell, begin, length, every, absolute, table, x, a, b) in enumerate(segments):
        integers.append([cell, begin, begin + length, every, absolute, 64 * k if table else -1])
        constants.append([x, a, b])
    made = make(
        **cells,
        segments=torch.tensor(integers, dtype=torch.int64).reshape(-1, 6),
        constants=torch.tensor(constants, dtype=torch.float64).reshape(-1, 3),
        tables=torch.linspace(-1, 2, 64 * max(1, len(segments)), dtype=torch.float64),
        plateau_cells=torch.tensor([row[0] for row in plateaus], dtype=torch.int64),
        plateaus=torch.tensor([row[1:] for row in plateaus], dtype=torch.float64).reshape(-1, 10),
    )
    return made, cells


@settings(deadline=None, derandomize=True)
@given(
    st.lists(SEGMENT, max_size=12),
    st.lists(PLATEAU, max_size=4),
    st.lists(st.none() | st.floats(width=32), min_size=1, max_size=60),
)
def test_both_twins_run_any_program_alike(segments, plateaus, events):
    ours, our_cells = program(_C.Program, segments, plateaus)
    theirs, their_cells = program(reference.Program, segments, plateaus)
    for metric in events:
        for p in (ours, theirs):
            p.advance() if metric is None else p.observe(metric)
        assert [c.hex() for c in ours.cells()] == [c.hex() for c in theirs.cells()]
    for name, tensor in our_cells.items():
        assert repr(tensor.tolist()) == repr(their_cells[name].tolist()), name


def arguments(**changed):
    good = {
        **moved(),
        "segments": torch.tensor([[0, 1, 5, 1, 0, 0]]),
        "constants": torch.zeros(1, 3, dtype=torch.float64),
        "tables": torch.zeros(4, dtype=torch.float64),
        "plateau_cells": torch.zeros(0, dtype=torch.int64),
        "plateaus": torch.zeros(0, 10, dtype=torch.float64),
    }
    return {**good, **changed}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cells", torch.zeros(6)),
        ("used", torch.zeros(2, dtype=torch.float64)),
        ("history", torch.zeros(7, 4, dtype=torch.float64)),
        ("recorded", torch.zeros(2, dtype=torch.int64)),
        ("epochs", torch.zeros(2, dtype=torch.int64)),
        ("segments", torch.zeros(1, 5, dtype=torch.int64)),
        ("segments", torch.tensor([[6, 1, 5, 1, 0, -1]])),
        ("segments", torch.tensor([[0, 1, 5, 0, 0, -1]])),
        ("segments", torch.tensor([[0, 1, 6, 1, 0, 0]])),
        ("constants", torch.zeros(2, 3, dtype=torch.float64)),
        ("tables", torch.zeros(3, dtype=torch.float64)),
        ("plateau_cells", torch.zeros(1, dtype=torch.int64)),
    ],
    ids=str,
)
def test_a_program_out_of_bounds_is_refused(name, value):
    _C.Program(**arguments())
    with pytest.raises(
        ValueError, match=r"segments|epochs|cells|constants|plateau|used|history|recorded"
    ):
        _C.Program(**arguments(**{name: value}))
