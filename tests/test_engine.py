"""The seams of the engine: units of work, and programs run by both of their twins."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.programs import EVENTS, PLATEAU, SEGMENT, moved, program

from lrfused.backends import available, reference

if available()["compiled"]:
    pytest.skip(f"no compiled backend: {available()['compiled']}", allow_module_level=True)

from lrfused import _C
from lrfused.backends import compiled

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


def compiled_program(**tensors):
    """Make the compiled program of named tensors, which shows nothing."""
    return _C.Program(
        tuple(tensors[name] for name in MOVED), tuple(tensors[name] for name in COMPILED),
        None, [], 100,
    )  # fmt: skip


@settings(deadline=None, derandomize=True)
@given(
    st.lists(SEGMENT, max_size=12),
    st.lists(PLATEAU, max_size=4),
    EVENTS,
)
def test_both_twins_run_any_program_alike(segments, plateaus, events):
    ours, our_cells = program(compiled.Program, segments, plateaus)
    theirs, their_cells = program(reference.Program, segments, plateaus)
    for metric in events:
        if metric is None:
            ours.advance(), theirs.advance()
        else:
            assert ours.feed(metric) == theirs.feed(metric)
        assert [c.hex() for c in ours.cells()] == [c.hex() for c in theirs.cells()]
    for name, tensor in our_cells.items():
        assert repr(tensor.tolist()) == repr(their_cells[name].tolist()), name


MOVED = "cells", "epochs", "used", "history", "recorded", "plateau_states", "observed"
COMPILED = "segments", "constants", "tables", "plateau_cells", "plateaus"


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
        ("observed", torch.zeros(2, dtype=torch.int64)),
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
    compiled_program(**arguments())
    with pytest.raises(
        ValueError, match=r"segments|epochs|cells|constants|plateau|used|history|recorded|observed"
    ):
        compiled_program(**arguments(**{name: value}))


def shown_program(rates, momenta):
    """Make a program that halves the first group's rate at its first step, and shows in lists."""
    tensors = arguments(
        segments=torch.tensor([[0, 1, 2, 1, 0, -1], [3, 1, 2, 1, 1, -1]]),
        constants=torch.tensor([[0.5, 0.0, 0.0], [1.0, 0.25, 0.0]], dtype=torch.float64),
    )
    lists = [tuple(tensors[name] for name in names) for names in (MOVED, COMPILED)]
    return _C.Program(*lists, rates, momenta, 7), tensors


def test_a_program_shows_one_object_in_the_group_and_the_list():
    rates, momenta = [1.0, 1.0, 1.0], [None, 0.5, None]
    made, tensors = shown_program(rates, momenta)
    groups = [{"lr": 1.0, "momentum": 0.5} for _ in rates]
    made.advance(groups)
    cells = tensors["cells"].tolist()
    assert rates == cells[::2]
    assert cells[0] == 0.05
    assert momenta == [None, 0.25, None]
    assert [group["momentum"] for group in groups] == [0.5, 0.25, 0.5]
    assert all(group["lr"] is rate for group, rate in zip(groups, rates, strict=True))
    assert groups[1]["momentum"] is momenta[1]


def test_a_program_without_lists_leaves_the_groups():
    made, _ = shown_program(None, [])
    groups = [{"lr": 1.0, "momentum": 0.5} for _ in range(3)]
    made.advance(groups)
    assert groups == [{"lr": 1.0, "momentum": 0.5}] * 3


def test_a_program_counts_the_steps_left_and_the_metrics_fed():
    made, tensors = shown_program(None, [])
    made.advance()
    assert made.left == 6
    made.left = 2
    made.advance()
    assert made.left == 1
    assert not made.feed(1.0)
    assert not made.feed(float("nan"))
    assert tensors["observed"].item() == 2


@pytest.mark.parametrize("changed", ["rates", "momenta", "groups"])
def test_lists_that_were_changed_are_refused(changed):
    lists = {"rates": [1.0] * 3, "momenta": [0.5] * 3, "groups": [{} for _ in range(3)]}
    made, _ = shown_program(lists["rates"], lists["momenta"])
    made.show(lists["groups"])
    lists[changed].pop()
    with pytest.raises(ValueError, match="lists of one entry for each of 3 groups"):
        made.show(lists["groups"])


def test_rates_must_be_a_list():
    with pytest.raises(TypeError, match="rates must be a list or None"):
        shown_program((1.0,) * 3, [])
