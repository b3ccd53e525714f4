"""A group's dict: nothing of another optimizer, a schedule that is written, settings."""

import pytest
from support.groups import Pair, groups_of, parameters
from torch.optim import lr_scheduler

from lrfused import ExponentialLR, FusedDecaySGD, OneCycleLR, StepLR

# -- dicts that another optimizer had ------------------------------------------------------------


def test_dicts_given_to_two_optimizers_carry_no_schedule_over(backend):
    given = groups_of(parameters(2))
    FusedDecaySGD(given, lr=0.5, schedule=StepLR(1, 0.5), backend=backend).step()
    second = FusedDecaySGD(given, lr=0.5, schedule=ExponentialLR(0.9), backend=backend)
    third = FusedDecaySGD(given, lr=0.5, backend=backend)
    third.step()
    assert [g["lr"] for g in third.param_groups] == [0.05, 0.01]  # as torch keeps what was written
    assert "StepLR" not in repr(second)
    assert third.scheduler.get_last_lr() == [0.05, 0.01]


def test_a_schedule_of_a_groups_own_is_not_lost_in_silence(backend):
    given = groups_of(parameters(2))
    given[1]["schedule"] = StepLR(1, 0.5)
    FusedDecaySGD(given, lr=0.5, backend=backend)
    with pytest.raises(ValueError, match=r"param_groups\[1\]\['schedule'\] is the place of anoth"):
        FusedDecaySGD(given, lr=0.5, backend=backend)
    given[1]["schedule"] = StepLR(1, 0.5)
    second = FusedDecaySGD(given, lr=0.5, backend=backend)
    second.step()
    assert [g["lr"] for g in second.param_groups] == [0.1, 0.01]


def test_a_constructor_that_fails_leaves_the_dicts(backend):
    first, second = groups_of(parameters(2))
    given = [first, {**second, "momentum": "high"}]
    before = [dict(group) for group in given]
    for make in (
        lambda: FusedDecaySGD(given, lr=0.5, schedule=StepLR(1, 0.5), backend=backend),
        lambda: FusedDecaySGD([first, {**second, "lr": "high"}], lr=0.5, schedule=StepLR(1)),
        lambda: FusedDecaySGD([first, {**second, "schedule": 3}], lr=0.5, schedule=StepLR(1)),
    ):
        with pytest.raises(TypeError):
            make()
    assert given[1].keys() == before[1].keys()
    optimizer = FusedDecaySGD([first, second], lr=0.5, schedule=ExponentialLR(0.9), backend=backend)
    optimizer.step()
    assert [g["lr"] for g in optimizer.param_groups] == [0.1 * 0.9, 0.02 * 0.9]


# -- a schedule that is written ------------------------------------------------------------------


def test_a_schedule_written_into_a_group_begins_there(backend):
    pair = Pair(backend, StepLR(1, 0.5), lambda o: lr_scheduler.StepLR(o, 1, 0.5), count=1)
    pair.step(2)
    pair.ours.param_groups[0]["schedule"] = ExponentialLR(0.1)
    pair.scheduler = lr_scheduler.ExponentialLR(pair.theirs, 0.1)
    pair.step(3)
    assert pair.ours.scheduler.last_epoch == 3
    assert "ExponentialLR" in repr(pair.ours)
    other = FusedDecaySGD(
        groups_of(parameters(1)), lr=0.5, schedule=ExponentialLR(0.1), backend=backend
    )
    other.load_state_dict(pair.ours.state_dict())
    assert other.scheduler.last_epoch == 3


def test_no_schedule_written_into_a_group_ends_its_own(backend):
    optimizer = FusedDecaySGD(
        groups_of(parameters(2)), lr=0.5, schedule=StepLR(1, 0.5), backend=backend
    )
    optimizer.step()
    optimizer.param_groups[0]["schedule"] = None
    optimizer.step()
    assert [g["lr"] for g in optimizer.param_groups] == [0.05, 0.005]
    del optimizer.param_groups[1]["schedule"]
    optimizer.step()
    assert [g["lr"] for g in optimizer.param_groups] == [0.05, 0.005]


@pytest.mark.parametrize("value", [3, "StepLR", StepLR, [0.5], {"epoch": 3}])
def test_what_is_no_schedule_is_refused_and_changes_nothing(backend, value):
    optimizer = FusedDecaySGD(
        groups_of(parameters(2)), lr=0.5, schedule=StepLR(1, 0.5), backend=backend
    )
    optimizer.step()
    shown = optimizer.param_groups[0]["schedule"]
    optimizer.param_groups[0]["schedule"] = value
    for _ in range(2):
        with pytest.raises((TypeError, ValueError), match="schedule"):
            optimizer.step()
    optimizer.param_groups[0]["schedule"] = shown
    optimizer.step()
    assert [g["lr"] for g in optimizer.param_groups] == [0.025, 0.005]


@pytest.mark.parametrize("key", ["max_lr", "min_lr", "initial_lr", "max_momentum"])
def test_what_a_one_cycle_reads_in_the_group_is_followed(backend, key):
    pair = Pair(
        backend,
        OneCycleLR(0.3, total_steps=30),
        lambda o: lr_scheduler.OneCycleLR(o, 0.3, total_steps=30),
    )
    pair.step(4)
    group = pair.ours.param_groups[0]
    group[key], kept = "high", group[key]
    for _ in range(2):
        with pytest.raises((TypeError, ValueError)):
            pair.ours.step()
    group[key] = kept

    def write(optimizer, _):
        optimizer.param_groups[1][key] *= 0.5

    pair.change(write)
    pair.step(9)
    pair.change(write)
    pair.step(16)


# -- settings ------------------------------------------------------------------------------------


def test_the_defaults_hold_every_setting(backend):
    settings = {
        "lr": 0.5, "momentum": 0.9, "dampening": 0.0, "weight_decay": 0.1, "nesterov": True,
        "maximize": True, "schedule": (StepLR(3),), "schedule_every": 2, "amp": "fused",
        "advance": "on_update", "max_grad_norm": 2.0, "master_weights": True, "capturable": False,
    }  # fmt: skip
    optimizer = FusedDecaySGD(parameters(1), backend=backend, **settings)
    assert {key: optimizer.defaults[key] for key in settings} == settings
    assert optimizer.defaults["backend"] == backend
    again = FusedDecaySGD(parameters(1), **optimizer.defaults)
    assert again.defaults == optimizer.defaults
    assert not {"schedule_every", "amp", "backend"} & set(optimizer.param_groups[0])


@pytest.mark.parametrize("key", ["schedule_every", "amp", "max_grad_norm", "backend"])
def test_a_setting_of_the_optimizer_in_a_group_is_refused(backend, key):
    with pytest.raises(ValueError, match=rf"FusedDecaySGD\({key}=...\), and not of a group"):
        FusedDecaySGD([{"params": parameters(1), key: 3}], lr=0.1, backend=backend)
