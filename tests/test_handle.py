"""The handle stands for a torch scheduler: its attributes and calls do what that one's do."""

import copy
import math

import pytest
import torch
from support.handles import MAKERS, Pair, groups
from torch.optim import lr_scheduler

import lrfused
from lrfused import FusedDecaySGD

# For each kind, what a program writes on its scheduler in the middle of a run.
EDITS = {
    "step": [("gamma", 0.25), ("step_size", 2), ("last_epoch", 11)],
    "multistep": [("gamma", 0.7), ("last_epoch", 0)],
    "constant": [("factor", 0.25), ("total_iters", 9)],
    "linear": [("total_iters", 12), ("end_factor", 0.5)],
    "exponential": [("gamma", 0.5), ("last_epoch", 100)],
    "polynomial": [("power", 1.0), ("total_iters", 30)],
    "cosine": [("T_max", 20), ("eta_min", 0.0), ("base_lrs", [0.5, 0.25]), ("last_epoch", 2)],
    "restarts": [("T_mult", 1), ("eta_min", 0.01), ("T_cur", 1), ("T_i", 9)],
    "lambda": [("base_lrs", [1.0, 2.0]), ("last_epoch", 9), ("lr_lambdas", [math.cos] * 2)],
    "cyclic": [("total_size", 20.0), ("step_ratio", 0.25), ("cycle_momentum", False)],
    "onecycle": [("total_steps", 50), ("last_epoch", 20)],
    "plateau": [
        ("patience", 0), ("factor", 0.1), ("best", math.inf), ("num_bad_epochs", 0),
        ("cooldown", 2), ("min_lrs", [0.04, 0.01]), ("threshold", 0.5), ("last_epoch", 7),
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", MAKERS)
def test_every_public_attribute_is_read(kind):
    pair = Pair(kind)
    pair.step(5)
    (_, scheduler), (_, handle) = pair.runs
    names = [name for name in vars(scheduler) if not name.startswith("_") and name != "optimizer"]
    assert names
    for name in names:
        assert getattr(handle, name) == getattr(scheduler, name), name
        assert hasattr(handle, name)
    assert not hasattr(handle, "no_such_thing")


EDITED = [(kind, *edit) for kind, edits in EDITS.items() for edit in edits]


@pytest.mark.parametrize(("kind", "name", "value"), EDITED, ids=lambda x: str(x)[:20])
def test_a_write_acts_from_the_next_schedule_step_on(kind, name, value):
    pair = Pair(kind)
    pair.step(3)
    pair.both(lambda s: setattr(s, name, copy.copy(value)))
    pair.both(lambda s: getattr(s, name))
    pair.step(12)


ITEMS = {
    "cosine": ("base_lrs", lambda rates: rates.__setitem__(0, 0.5)),
    "lambda": ("base_lrs", lambda rates: rates.__setitem__(slice(None), [0.3, 0.4])),
    "multistep": ("milestones", lambda counter: counter.update([4, 4])),
    "plateau": ("min_lrs", lambda rates: rates.__setitem__(1, 0.03)),
}


@pytest.mark.parametrize("kind", ITEMS)
def test_a_write_to_an_item_acts_too(kind):
    name, write = ITEMS[kind]
    pair = Pair(kind)
    pair.step(2)
    held = [getattr(scheduler, name) for _, scheduler in pair.runs]
    pair.step()
    for value in held:
        write(value)
    pair.step(9)
    for value in held:  # the same list, written again
        write(value)
    pair.step(3)


@pytest.mark.parametrize("kind", ["exponential", "onecycle"])
def test_a_value_of_another_kind_is_refused_and_nothing_changes(kind):
    pair = Pair(kind)
    pair.step(3)
    _, handle = pair.runs[1]
    name = {"exponential": "gamma", "onecycle": "total_steps"}[kind]
    for value in ("0.5", None, [0.5]):
        with pytest.raises(TypeError, match=f"scheduler.{name} must be"):
            setattr(handle, name, value)
    pair.step(5)


def test_an_attribute_of_two_schedulers_is_refused_and_says_how_to_go_on():
    schedule = [lrfused.StepLR(3), lrfused.ExponentialLR(0.9)]
    optimizer = FusedDecaySGD(groups(), lr=0.1, schedule=schedule, schedule_every=None)
    with pytest.raises(AttributeError, match=r"StepLR, ExponentialLR, 2 have it.*load"):
        optimizer.scheduler.gamma = 0.5
    assert optimizer.scheduler.step_size == 3
    optimizer.scheduler.step_size = 4  # one of them has this


def test_rates_that_are_no_schedulers_list_cannot_be_written():
    schedule = lrfused.warmup(lrfused.StepLR(3), 2)
    handle = FusedDecaySGD(groups(), lr=0.1, schedule=schedule).scheduler
    assert handle.base_lrs == [0.1, 0.05]
    with pytest.raises(TypeError, match="initial_lr"):
        handle.base_lrs[0] = 1.0


@pytest.mark.parametrize("kind", [kind for kind in MAKERS if kind != "plateau"])
@pytest.mark.parametrize("epochs", [[4], [4, None, 2, None, None], [0, 0, 1]], ids=str)
@pytest.mark.filterwarnings("ignore:The epoch parameter")
def test_a_step_to_an_epoch_is_torchs(kind, epochs):
    pair = Pair(kind)
    pair.step(2)
    for epoch in epochs:
        pair.both(lambda s, epoch=epoch: s.step(epoch=epoch))
        pair.step()
    pair.both(lambda s: s.step(3))
    pair.step(4)


def test_warm_restarts_go_to_fractions_of_epochs():
    pair = Pair("restarts")
    pair.step()
    for epoch in range(9):
        for i in range(3):
            pair.both(lambda s, at=epoch + i / 3: s.step(at))
    pair.step(7)


@pytest.mark.filterwarnings("ignore:The epoch parameter")
def test_a_plateau_takes_an_epoch_beside_its_metric():
    pair = Pair("plateau")
    for epoch in (3, 4, 9):
        pair.both(lambda s, epoch=epoch: s.step(1.0, epoch))
        pair.both(lambda s, epoch=epoch: s.step(1.0, epoch=epoch + 1))
    pair.step(4)


def test_an_epoch_is_deprecated_as_in_torch():
    pair = Pair("step")
    pair.step()
    _, handle = pair.runs[1]
    with pytest.warns(UserWarning, match="epoch parameter"):
        handle.step(5)
    _, plateau = Pair("plateau").runs[1]
    with pytest.warns(UserWarning, match="epoch parameter"):
        plateau.step(1.0, 5)


@pytest.mark.filterwarnings("ignore:The epoch parameter")
def test_a_step_to_an_epoch_that_fails_changes_nothing():
    pair = Pair("onecycle")
    pair.step(3)
    _, handle = pair.runs[1]
    with pytest.raises(ValueError, match="step"):
        handle.step(41)
    pair.step(5)


def test_an_epoch_that_a_plateau_is_fed_is_warned_of():
    schedule = [lrfused.StepLR(3), lrfused.ReduceLROnPlateau()]
    optimizer = FusedDecaySGD(groups(), lr=0.1, schedule=schedule)
    optimizer.step()
    optimizer.scheduler.step(0)
    with pytest.warns(UserWarning, match="looks like an epoch"):
        optimizer.scheduler.step(1)
    optimizer.scheduler.step(1.0)
    optimizer.scheduler.step(2.0)


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.filterwarnings("ignore:To get the last learning rate")
def test_get_lr_is_torchs(kind):
    pair = Pair(kind)
    pair.step(3)
    (_, scheduler), (_, handle) = pair.runs
    want = scheduler.get_last_lr() if kind == "plateau" else scheduler.get_lr()
    assert handle.get_lr() == want
    pair.step(2)


def test_the_wrong_order_is_warned_of_as_in_torch():
    optimizer = FusedDecaySGD(groups(), lr=0.1, schedule=lrfused.StepLR(3), schedule_every=None)
    with pytest.warns(UserWarning, match=r"before `optimizer.step\(\)`"):
        optimizer.scheduler.step()
    optimizer.scheduler.step()  # once, as in torch
    right = FusedDecaySGD(groups(), lr=0.1, schedule=lrfused.StepLR(3), schedule_every=None)
    right.step()
    right.scheduler.step()


def test_a_handle_cannot_be_replaced_where_there_is_a_schedule():
    optimizer = FusedDecaySGD(groups(), lr=0.1, schedule=lrfused.StepLR(3))
    with pytest.raises(TypeError, match="cannot be set"):
        optimizer.scheduler = object()
    without = FusedDecaySGD(groups(), lr=0.1)
    without.scheduler = scheduler = lr_scheduler.StepLR(without, 1)
    assert without.scheduler is scheduler


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("step", "step_size", -1), ("restarts", "T_i", 0), ("restarts", "T_mult", 0),
        ("plateau", "patience", 10**400), ("plateau", "min_lrs", []), ("plateau", "mode", "foo"),
        ("step", "last_epoch", math.inf), ("step", "last_epoch", math.nan),
        ("step", "last_epoch", 1.5), ("cosine", "base_lrs", [0.1]),
    ],
    ids=str,
)  # fmt: skip
def test_a_refused_write_leaves_everything_as_it_was(kind, name, value):
    pair = Pair(kind)
    pair.step(3)
    _, handle = pair.runs[1]
    before = handle.state_dict()
    with pytest.raises((ValueError, TypeError, OverflowError)):
        setattr(handle, name, value)
    assert handle.state_dict() == before
    pair.step(6)


@pytest.mark.parametrize("write", [lambda x: x.append(3.0), lambda x: x.__setitem__(0, "a")])
def test_a_bad_item_is_refused_until_it_is_mended(write):
    pair = Pair("cosine")
    pair.step(2)
    (_, _), (ours, handle) = pair.runs
    held = handle.base_lrs
    good = list(held)
    write(held)
    for _ in range(2):
        with pytest.raises((ValueError, TypeError), match=r"scheduler.base_lrs must"):
            ours.step()
    held[:] = good
    pair.step(3)


@pytest.mark.parametrize("epoch", [math.nan, math.inf, 0.5])
def test_a_step_to_no_epoch_is_refused(epoch):
    pair = Pair("step")
    pair.step(3)
    with pytest.raises(ValueError, match="epoch"):
        pair.runs[1][1].step(epoch)
    pair.step(3)


def test_a_method_that_is_replaced_on_the_handle_is_called():
    optimizer = FusedDecaySGD(groups(), lr=0.1, schedule=lrfused.StepLR(1), schedule_every=None)
    handle, calls = optimizer.scheduler, []
    step = handle.step
    handle.step = lambda *args: (calls.append(args), step(*args))
    optimizer.step()
    handle.step()
    assert calls == [()]
    assert "step" not in handle.state_dict()


def test_rates_written_by_the_user_are_not_the_schedules_last():
    pair = Pair("step")
    pair.step(4)
    for optimizer, _ in pair.runs:
        optimizer.param_groups[0]["lr"] = 0.5
    (_, scheduler), (ours, handle) = pair.runs
    assert handle.get_last_lr() == scheduler.get_last_lr()
    assert handle.state_dict()["_last_lr"] == scheduler.state_dict()["_last_lr"]
    handle.load_state_dict(handle.state_dict())
    assert handle.get_last_lr() == scheduler.get_last_lr()
    assert ours.param_groups[0]["lr"] == 0.5
    pair.step(4)


def test_a_loaded_state_shows_its_own_rates_group_by_group():
    own = [{**groups()[0], "lr": 1.0, "schedule": None}, groups()[1]]
    optimizer = FusedDecaySGD(own, lr=0.1, schedule=lrfused.StepLR(1, 0.5))
    optimizer.step()
    optimizer.scheduler.load_state_dict(optimizer.scheduler.state_dict())
    assert optimizer.scheduler.get_last_lr() == [1.0, 0.025]


@pytest.mark.parametrize("call", ["step(3)", "get_lr()"])
def test_torchs_warnings_point_at_the_callers_line(call):
    pair = Pair("exponential")
    pair.step()
    handle = pair.runs[1][1]
    with pytest.warns(UserWarning, match="epoch|last learning rate") as given:
        handle.step(3) if call == "step(3)" else handle.get_lr()
    assert {w.filename for w in given} == {__file__}


def test_a_group_that_cannot_join_leaves_the_optimizer_as_it_was():
    optimizer = FusedDecaySGD(groups(), lr=0.1, schedule=lrfused.StepLR(1, 0.5))
    new = {
        "params": [torch.nn.Parameter(torch.ones(1))],
        "schedule": lrfused.OneCycleLR(max_lr=[1.0, 2.0], total_steps=10),
    }
    with pytest.raises(ValueError, match="max_lr"):
        optimizer.add_param_group(new)
    optimizer.step()
    assert optimizer.scheduler.get_last_lr() == [0.05, 0.025]
