"""Groups that are removed, added, replaced, or stepped one at a time, as by torch's optimizer."""

import copy

import pytest
import torch
from cases import STEPPED
from support.bits import assert_same_bits, assert_same_rates
from support.groups import Pair, groups_of, parameters
from torch.optim import lr_scheduler

from lrfused import (
    ExponentialLR,
    FusedDecaySGD,
    LambdaLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)


def remove(optimizer, params):
    del optimizer.param_groups[1]


def take_from_the_front(optimizer, params):
    optimizer.param_groups.pop(0)


def append_a_copy(optimizer, params):
    optimizer.param_groups.append({**optimizer.param_groups[0], "params": [params[3]]})


def pop_and_append(optimizer, params):
    optimizer.param_groups.append(optimizer.param_groups.pop(0))


def reverse(optimizer, params):
    optimizer.param_groups = optimizer.param_groups[::-1]


def replace_the_dicts(optimizer, params):
    optimizer.param_groups = [dict(group) for group in optimizer.param_groups]


def replace_one_by_another_rate(optimizer, params):
    optimizer.param_groups[1] = {**optimizer.param_groups[1], "lr": 0.7}


def clear_and_add(optimizer, params):
    optimizer.param_groups.clear()
    optimizer.state.clear()
    optimizer.add_param_group({"params": [params[3]], "initial_lr": 0.5})


def assign_other_parameters(optimizer, params):
    optimizer.param_groups[0]["params"] = [params[3]]


CHANGES = [
    remove,
    take_from_the_front,
    append_a_copy,
    pop_and_append,
    reverse,
    replace_the_dicts,
    replace_one_by_another_rate,
    clear_and_add,
    assign_other_parameters,
]


@pytest.mark.parametrize("change", CHANGES)
def test_without_a_schedule_every_change_is_followed(backend, change):
    pair = Pair(backend)
    pair.step(2)
    pair.change(change)
    pair.step(2)


# torch's own closed forms pair rates and groups by their positions, and fail when these change.
RECURSIVE = {
    "StepLR": (StepLR(2, 0.5), lambda o: lr_scheduler.StepLR(o, 2, 0.5)),
    "ExponentialLR": (ExponentialLR(0.9), lambda o: lr_scheduler.ExponentialLR(o, 0.9)),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", RECURSIVE)
def test_a_schedule_goes_on_after_every_change(backend, name, change):
    pair = Pair(backend, *RECURSIVE[name])
    pair.step(3)
    pair.change(change)
    pair.step(4)
    if change not in (remove, append_a_copy):
        pair.change(change)
        pair.step(2)


@pytest.mark.parametrize("name", RECURSIVE)
def test_a_group_that_comes_back_goes_on_at_the_epoch_of_the_others(backend, name):
    pair = Pair(backend, *RECURSIVE[name])
    pair.step()
    away = []
    pair.change(lambda o, _: away.append(o.param_groups.pop(1)))
    pair.step(4)
    pair.change(lambda o, _: o.param_groups.append(away.pop(0)))
    pair.step(3)


ALIKE = [case for case in STEPPED if case.groups is None]


@pytest.mark.backends("host", reason="the next test is for devices")
@pytest.mark.parametrize("case", ALIKE, ids=str)
def test_groups_stepped_one_at_a_time_advance_once_each(backend, case):
    """DeepSpeed does so, with the schedule in the loop, or here in the step."""
    step_one_at_a_time(backend, case)


@pytest.mark.parametrize("case", ALIKE[::7], ids=str)
def test_groups_of_a_device_are_stepped_one_at_a_time(backend, case):
    step_one_at_a_time(backend, case)


def step_one_at_a_time(backend, case):
    whole, single = (
        FusedDecaySGD(groups_of(parameters(2)), lr=0.5, schedule=case.ours(), backend=backend)
        for _ in range(2)
    )
    for _ in range(25):
        whole.step()
        every = single.param_groups
        for group in every:
            single.param_groups = [group]
            single.step()
        single.param_groups = every
        assert_same_rates(*([g["lr"] for g in o.param_groups] for o in (single, whole)))
    whole.step(), single.step()
    assert_same_rates(*([g["lr"] for g in o.param_groups] for o in (single, whole)))


def test_groups_stepped_one_at_a_time_with_the_schedule_in_the_loop(backend):
    pair = Pair(backend, StepLR(2, 0.5), RECURSIVE["StepLR"][1], schedule_every=None)
    handle = pair.ours.scheduler
    for _ in range(5):
        for optimizer, params in zip((pair.ours, pair.theirs), pair.params, strict=True):
            every = optimizer.param_groups
            for p in params:
                p.grad = torch.full_like(p, 0.5)
            for group in every:
                optimizer.param_groups = [group]
                optimizer.step()
            optimizer.param_groups = every
        handle.step()
        pair.scheduler.step()
        pair.compare()
    assert handle.last_epoch == 5


def test_a_group_that_comes_back_shares_the_plateaus_state(backend):
    first, second = parameters(2)
    optimizer = FusedDecaySGD(
        groups_of([first, second]),
        lr=0.5,
        backend=backend,
        schedule=ReduceLROnPlateau(factor=0.5, patience=1),
    )
    handle = optimizer.scheduler
    for metric in (1.0, 2.0):
        handle.step(metric)
    away = optimizer.param_groups.pop(1)
    handle.step(2.0)  # two bad ones: a cut
    assert [g["lr"] for g in optimizer.param_groups] == [0.05]
    optimizer.param_groups.append(away)
    handle.step(2.0)  # one bad one since the cut, for both, as torch's counts for all
    assert [g["lr"] for g in optimizer.param_groups] == [0.05, 0.02]
    handle.step(2.0)
    assert [g["lr"] for g in optimizer.param_groups] == [0.025, 0.01]


def test_the_checkpoint_after_a_change_is_of_the_groups_there_are(backend):
    params = parameters()
    schedule = [StepLR(2, 0.5), SequentialLR([StepLR(1, 0.9), ExponentialLR(0.9)], [2])]
    optimizer = FusedDecaySGD(groups_of(params[:3]), lr=0.5, schedule=schedule, backend=backend)
    for _ in range(3):
        optimizer.step()
    del optimizer.param_groups[0]
    saved = copy.deepcopy(optimizer.state_dict())
    other = FusedDecaySGD(groups_of(params[1:3]), lr=0.5, schedule=schedule, backend=backend)
    other.load_state_dict(saved)
    for _ in range(4):
        optimizer.step(), other.step()
        assert_same_rates(*([g["lr"] for g in o.param_groups] for o in (other, optimizer)))
    assert optimizer.scheduler.state_dict() == other.scheduler.state_dict()
    optimizer.load_state_dict(saved)
    assert [g["schedule"]["epoch"] for g in optimizer.param_groups] == [3, 3]
    assert len(copy.deepcopy(optimizer).param_groups) == 2


def test_a_schedule_made_for_so_many_groups_takes_no_other(backend):
    schedule = LambdaLR([lambda epoch: 0.9**epoch, lambda epoch: 0.8**epoch])
    optimizer = FusedDecaySGD(groups_of(parameters(2)), lr=0.5, schedule=schedule, backend=backend)
    optimizer.step()
    before = [g["lr"] for g in optimizer.param_groups]
    optimizer.param_groups.append({**optimizer.param_groups[0], "params": parameters(1)})
    with pytest.raises(ValueError, match=r"LambdaLR was made for 2 groups \(lr_lambdas\)"):
        optimizer.step()
    optimizer.param_groups.pop()
    assert [g["lr"] for g in optimizer.param_groups] == before
    away = optimizer.param_groups.pop(0)  # but one may leave, and come back to its own function
    optimizer.step()
    assert optimizer.param_groups[0]["lr"] == 0.02 * 0.8**2
    optimizer.param_groups.insert(0, away)
    optimizer.step()
    assert [g["lr"] for g in optimizer.param_groups] == [0.1 * 0.9**3, 0.02 * 0.8**3]


def test_a_list_of_no_groups_steps_nothing(backend):
    pair = Pair(backend, *RECURSIVE["StepLR"])
    pair.step()
    every = [o.param_groups for o in (pair.ours, pair.theirs)]
    pair.ours.param_groups = []
    pair.ours.step()
    assert pair.ours.lr_used == []
    assert pair.ours.scheduler.get_last_lr() == []
    pair.ours.param_groups = every[0]
    pair.step(3)


def test_a_group_that_lists_a_parameter_twice_is_stepped_as_by_torch(backend):
    pair = Pair(backend)
    pair.step()

    def replace(optimizer, params):
        group = optimizer.param_groups[0]
        optimizer.param_groups[0] = {**group, "params": [params[0], params[0]]}

    pair.change(replace)
    pair.step(2)


def test_what_was_noted_follows_a_group(backend):
    optimizer = FusedDecaySGD(
        groups_of(parameters(3)), lr=0.5, schedule=ExponentialLR(0.5), backend=backend
    )
    optimizer.step()
    optimizer.param_groups.pop(1)
    assert optimizer.lr_used == [0.1, 0.3]
    optimizer.param_groups.reverse()
    optimizer.step()
    assert optimizer.lr_used == [0.15, 0.05]
    assert optimizer.lr_history().lrs == [[0.15, 0.05], [0.075, 0.025]]
    assert optimizer.scheduler.get_last_lr() == [0.075, 0.025]


@pytest.mark.parametrize("capturable", [False, True])
def test_a_rate_written_while_a_group_is_away_is_followed(backend, capturable):
    optimizer = FusedDecaySGD(
        groups_of(parameters(2)),
        lr=0.5,
        schedule=ExponentialLR(0.5),
        backend=backend,
        capturable=capturable,
    )
    optimizer.step()
    away = optimizer.param_groups.pop(0)
    optimizer.step()
    away["lr"] = 0.8
    optimizer.param_groups.append(away)
    optimizer.step()
    assert [float(g["lr"]) for g in optimizer.param_groups] == [0.02 * 0.5**3, 0.4]


# -- refused, and nothing changed ----------------------------------------------------------------


@pytest.mark.parametrize("copied", [False, True])
def test_one_group_twice_is_refused(backend, copied):
    pair = Pair(backend, StepLR(2, 0.5))
    again = pair.ours.param_groups[0]
    pair.ours.param_groups.append(dict(again) if copied else again)
    before = [p.detach().clone() for p in pair.params[0]]
    for p in pair.params[0]:
        p.grad = torch.ones_like(p)
    with pytest.raises(ValueError, match=r"one group twice|in more than one parameter group"):
        pair.ours.step()
    for p, kept in zip(pair.params[0], before, strict=True):
        assert_same_bits(p, kept)


def test_a_group_without_a_rate_is_refused_as_by_torch(backend):
    pair = Pair(backend, StepLR(2, 0.5))
    pair.ours.param_groups.append({"params": [pair.params[0][3]]})
    with pytest.raises(KeyError, match="lr"):
        pair.ours.step()
