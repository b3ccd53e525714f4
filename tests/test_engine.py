"""The seams of the engine: units of work, and programs run by both of their twins."""

from operator import is_

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
        [[]] * 6, 100,
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


def shown_program(rates=(1.0,) * 3, momenta=(), templates=(None,) * 3):
    """Make a program that halves the first group's rate at its first step, and shows in lists.

    Return it, its tensors and the lists: groups, rates, momenta, templates, places, kept.
    """
    tensors = arguments(
        segments=torch.tensor([[0, 1, 2, 1, 0, -1], [3, 1, 2, 1, 1, -1]]),
        constants=torch.tensor([[0.5, 0.0, 0.0], [1.0, 0.25, 0.0]], dtype=torch.float64),
    )
    groups = [{"lr": 1.0, "momentum": 0.5, "schedule": None} for _ in range(3)]
    shown = [groups, list(rates), list(momenta), list(templates), [None] * 3, []]
    given = [tuple(tensors[name] for name in names) for names in (MOVED, COMPILED)]
    return _C.Program(*given, shown, 7), tensors, shown


def test_a_program_shows_one_object_in_the_group_and_the_list():
    made, tensors, shown = shown_program(
        momenta=[None, 0.5, None], templates=[None, None, {"steps_since": 0}]
    )
    groups, rates, momenta, _, places, _ = shown
    made.advance(groups)
    cells = tensors["cells"].tolist()
    assert rates == cells[::2]
    assert cells[0] == 0.05
    assert momenta == [None, 0.25, None]
    assert [group["momentum"] for group in groups] == [0.5, 0.25, 0.5]
    assert all(group["lr"] is rate for group, rate in zip(groups, rates, strict=True))
    assert groups[1]["momentum"] is momenta[1]
    assert places == [None, None, {"steps_since": 0, "epoch": 1}]
    assert groups[2]["schedule"] is places[2]


def test_a_program_fills_a_rate_that_is_a_tensor():
    users = torch.tensor(1.0, requires_grad=True)
    made, tensors, (groups, rates, *_) = shown_program()
    cell = tensors["cells"][2]
    groups[0]["lr"] = rates[0] = users
    groups[1]["lr"] = rates[1] = cell
    version = cell._version
    made.advance(groups)
    assert groups[0]["lr"] is rates[0] is users
    assert users.item() == torch.tensor(0.05).item()
    assert groups[1]["lr"] is rates[1] is cell
    assert cell._version == version


@pytest.mark.parametrize(
    ("key", "value"), [("lr", 1e3), ("momentum", 0.123), ("schedule", {}), ("params", [])]
)
def test_a_program_finds_what_was_written(key, value):
    made, _, (groups, *_) = shown_program(
        momenta=[None, 0.5, None], templates=[None, {"steps_since": 0}, None]
    )
    made.advance(groups)
    assert made.shows(groups)
    assert not made.shows(groups[:2])
    assert not made.shows([dict(group) for group in groups])
    groups[1][key] = value
    assert made.shows(groups) == (key == "params")
    groups[1].pop(key)
    assert made.shows(groups) == (key == "params")


def test_a_momentum_that_no_schedule_cycles_may_be_written():
    made, _, (groups, *_) = shown_program(momenta=[None, 0.5, None])
    made.advance(groups)
    groups[0]["momentum"] = 0.7
    assert made.shows(groups)


def test_a_program_counts_the_steps_left_and_the_metrics_fed():
    made, tensors, _ = shown_program()
    made.advance()
    assert made.left == 6
    made.left = 2
    made.advance()
    assert made.left == 1
    assert not made.feed(1.0)
    assert not made.feed(float("nan"))
    assert tensors["observed"].item() == 2


@pytest.mark.parametrize("changed", range(5))
def test_lists_that_were_changed_are_refused(changed):
    made, _, shown = shown_program(momenta=[0.5] * 3)
    made.show(shown[0])
    shown[changed].pop()
    with pytest.raises(ValueError, match="lists of one entry for each of 3 groups"):
        made.show(shown[0])


def group_of(params, momentum=0.9, **numbers):
    known = {"weight_decay": 0.0, "dampening": 0.0, "nesterov": False, "maximize": False}
    return {"params": params, "momentum": momentum, **known, **numbers}


def parameter(shape, dtype=torch.float32, grad=True):
    p = torch.zeros(shape, dtype=dtype, requires_grad=True)
    p.grad = torch.ones(shape, dtype=dtype) if grad else None
    return p


def test_a_gather_names_the_slots_and_the_rest():
    plain, late, double = parameter((3, 5)), parameter(4, grad=False), parameter(7, torch.float64)
    odd, half = parameter((4, 6)), parameter(9, torch.bfloat16)
    odd.grad = torch.ones(6, 4).T
    buffer, master = torch.ones(9), torch.ones(9)
    groups = [group_of([plain, late, double], momentum=0.0), group_of([odd, half])]
    state = {half: {"momentum_buffer": buffer, "master": master}}
    found = _C.gather(groups, state, [0.1, 0.9] * 2, _C.Master.whole, "cpu")
    assert (found.valid, found.firsts, found.places) == (True, 0, 5)
    assert [(g, p is odd) for g, p in found.odd] == [(1, True)]
    assert all(map(is_, found.params, [plain, double, half]))
    assert found.slots.tolist() == [
        [plain.data_ptr(), plain.grad.data_ptr(), 0, 0, 15, 0, 0, 0, 0, 0, 0, 0],
        [double.data_ptr(), double.grad.data_ptr(), 0, 0, 7, 0, 0, 2, 1, 1, 0, 0],
        [half.data_ptr(), half.grad.data_ptr(), buffer.data_ptr(), master.data_ptr()]
        + [9, 1, 2, 4, 2, 2, 1, 0],
    ]


def test_a_gather_counts_first_steps_and_holds_the_gradients():
    p, half = parameter(5), parameter(3, torch.float16)
    found = _C.gather([group_of([p, half])], {}, [0.1, 0.9], _C.Master.whole, "cpu")
    assert found.firsts == 2
    assert found.slots[:, 6].tolist() == [1, 1]  # the modes
    address, version = p.grad.data_ptr(), p._version
    p.grad = None
    held = [torch.empty(5) for _ in range(8)]
    assert all(tensor.data_ptr() != address for tensor in held)
    found.bump_versions()
    assert p._version == version + 1


class Subclass(torch.Tensor):
    """A tensor with torch functions of its own."""


@pytest.mark.parametrize("name", ["momentum_buffer", "master"])
def test_a_gather_leaves_out_state_of_other_classes(name):
    kinds = [torch.ones(4).as_subclass(Subclass), 0.5, [1.0], torch.Tensor, None]
    params = [parameter(4, torch.bfloat16, grad=i % 3 > 0) for i in range(8 * len(kinds))]
    own = [kinds[i % len(kinds)] for i in range(len(params))]
    own = [torch.ones(4) if value is torch.Tensor else value for value in own]
    state = {p: {name: value} for p, value in zip(params, own, strict=True)}
    found = _C.gather([group_of(params)], state, [0.1, 0.9], _C.Master.whole, "cpu")
    given = [i for i, p in enumerate(params) if p.grad is not None]
    plain = [i for i in given if i % len(kinds) > 2]
    assert [p.data_ptr() for p in found.params] == [params[i].data_ptr() for i in plain]
    assert [p.data_ptr() for _, p in found.odd] == [
        params[i].data_ptr() for i in given if i not in plain
    ]
    column = 2 if name == "momentum_buffer" else 3
    assert found.slots[:, column].tolist() == [
        0 if own[i] is None else own[i].data_ptr() for i in plain
    ]


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_a_gather_of_numbers_that_are_none_has_no_slots(mode):
    params = [parameter(5), parameter(6), parameter(7, grad=False)]
    with mode():
        found = _C.gather(
            [group_of(params, weight_decay="much")], {}, [0.1, 0.9], _C.Master.none, "cpu"
        )
        assert found.slots.shape == (0, 12)
    assert not found.valid
    assert found.firsts == 0
    assert [p.numel() for _, p in found.odd] == [5, 6]
    assert found.params == []


def test_a_gather_leaves_out_what_is_not_at_a_multiple_of_its_size():
    p = torch.frombuffer(memoryview(bytearray(41))[1:], dtype=torch.float32)
    p.requires_grad_()
    p.grad = torch.ones(10)
    found = _C.gather([group_of([p])], {}, [0.1, 0.9], _C.Master.none, "cpu")
    assert p.data_ptr() % 4 == 1
    assert len(found.odd) == 1


def test_a_gather_is_refused_for_other_cells_and_devices():
    groups = [group_of([parameter(5)])]
    with pytest.raises(ValueError, match="there are 1 cells for 1 groups"):
        _C.gather(groups, {}, [0.1], _C.Master.none, "cpu")
    with pytest.raises(RuntimeError, match="nowhere"):
        _C.gather(groups, {}, [0.1, 0.9], _C.Master.none, "nowhere")
