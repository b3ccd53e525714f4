"""The seams of the engine: units of work, and programs run by both of their twins."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import EVENTS, PLATEAU, SEGMENT, moved, program

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


@settings(deadline=None, derandomize=True)
@given(
    st.lists(SEGMENT, max_size=12),
    st.lists(PLATEAU, max_size=4),
    EVENTS,
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
