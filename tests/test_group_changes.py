"""Changed lists of groups beside copies, checkpoints, handles, errors and other optimizers."""

import copy
import gc
import pickle
import weakref

import pytest
import torch
from support.bits import assert_same_bits, assert_same_rates
from support.groups import Pair, groups_of, parameters
from torch.optim import lr_scheduler

from lrfused import (
    CosineAnnealingLR,
    CyclicLR,
    ExponentialLR,
    FusedDecaySGD,
    LambdaLR,
    OneCycleLR,
    ReduceLROnPlateau,
    StepLR,
    fuse,
)

pytestmark = pytest.mark.backends("host", reason="test_groups.py changes lists on devices")


def rates(optimizer):
    return [float(group["lr"]) for group in optimizer.param_groups]


def made(backend, schedule, count=3, **settings):
    return FusedDecaySGD(
        groups_of(parameters(count)), lr=0.5, momentum=0.9, schedule=schedule, backend=backend,
        **settings,
    )  # fmt: skip


OWN = {
    "LambdaLR": LambdaLR(lambda epoch: 0.5**epoch),
    "functions": LambdaLR([lambda e: 0.5**e, lambda e: 0.6**e, lambda e: 0.7**e]),
    "CosineAnnealingLR": CosineAnnealingLR(4),
    "CyclicLR": CyclicLR([0.1, 0.2, 0.3], [0.4, 0.6, 0.9], step_size_up=3),
    "OneCycleLR": OneCycleLR([0.1, 0.2, 0.3], total_steps=40),
    "ReduceLROnPlateau": ReduceLROnPlateau(patience=0, min_lr=[0.09, 0.01, 0.2]),
}


@pytest.mark.parametrize("change", [lambda groups: groups.reverse(), lambda groups: groups.pop(1)])
@pytest.mark.parametrize("name", OWN)
def test_copies_and_checkpoints_keep_what_belongs_to_each_group(backend, name, change):
    optimizer = made(backend, OWN[name])
    optimizer.step()
    change(optimizer.param_groups)
    optimizer.step()
    copies = [copy.deepcopy(optimizer)]
    if name in ("CosineAnnealingLR", "ReduceLROnPlateau"):
        copies.append(pickle.loads(pickle.dumps(optimizer)))
    if name not in ("functions", "CyclicLR", "OneCycleLR", "ReduceLROnPlateau"):
        other = FusedDecaySGD(
            [dict(g) for g in groups_of(parameters(len(optimizer.param_groups)))],
            lr=0.5, momentum=0.9, schedule=OWN[name], backend=backend,
        )  # fmt: skip
        other.load_state_dict(optimizer.state_dict())
        copies.append(other)
    for _ in range(6):
        for each in (optimizer, *copies):
            each.step()
            if name == "ReduceLROnPlateau":
                each.scheduler.step(1.0)
        for each in copies:
            assert_same_rates(rates(each), rates(optimizer))


def test_a_recorded_schedule_is_copied_after_a_change(backend):
    class Own(lr_scheduler.LRScheduler):
        def get_lr(self):
            return [base / (1 + self.last_epoch) for base in self.base_lrs]

    theirs = torch.optim.SGD(groups_of(parameters(3)), lr=0.1)
    optimizer, _ = fuse(theirs, Own(theirs), total_steps=20, backend=backend, schedule_every=1)
    optimizer.step()
    optimizer.param_groups.pop(0)
    optimizer.param_groups.reverse()
    other = copy.deepcopy(optimizer)
    for _ in range(4):
        optimizer.step(), other.step()
        assert rates(optimizer) == rates(other)
    assert rates(optimizer) == [0.3 / 6, 0.02 / 6]


# -- dicts that have left ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spoil",
    [
        lambda group: FusedDecaySGD([group], lr=0.1, schedule=ExponentialLR(0.9)).step(),
        lambda group: group.clear(),
        lambda group: group.update(lr=None, schedule=3),
    ],
)
def test_what_becomes_of_a_dict_that_left_is_not_read(backend, spoil):
    optimizer = made(backend, StepLR(1, 0.5))
    optimizer.step()
    spoil(optimizer.param_groups.pop())
    optimizer.step()
    optimizer.state_dict()
    assert rates(optimizer) == [0.025, 0.005]


def test_a_popped_group_may_be_added_again(backend):
    optimizer = FusedDecaySGD(
        [{"params": [p], "schedule": StepLR(1, 0.5)} for p in parameters(2)], lr=0.5,
        backend=backend,
    )  # fmt: skip
    optimizer.step()
    group = optimizer.param_groups.pop()
    optimizer.step()
    optimizer.add_param_group(group)
    optimizer.step()
    assert rates(optimizer) == [0.0625, 0.125]


def test_a_dict_of_another_optimizer_brings_no_epoch(backend):
    optimizer, other = made(backend, CosineAnnealingLR(10), 2), made(backend, StepLR(3, 0.5), 2)
    for _ in range(2):
        other.step()
    optimizer.step()
    params = parameters(1)
    optimizer.param_groups.append({**copy.deepcopy(other.param_groups[0]), "params": params})
    optimizer.step()
    assert [group["schedule"]["epoch"] for group in optimizer.param_groups] == [2, 2, 2]


@pytest.mark.parametrize("schedule", [None, ExponentialLR(0.5)])
def test_the_live_cell_of_a_group_that_left_is_no_other_groups(backend, schedule):
    pair = Pair(
        backend, schedule, schedule and (lambda o: lr_scheduler.ExponentialLR(o, 0.5)),
        capturable=True,
    )  # fmt: skip
    pair.step()
    away = []
    pair.change(lambda o, _: away.append(o.param_groups.pop(0)))
    pair.step()
    pair.change(lambda o, _: o.param_groups.append(away.pop(0)))
    pair.step(2)


# -- several groups made of one ------------------------------------------------------------------


def test_a_group_that_is_split_goes_on_in_both_parts(backend):
    first, second = parameters(2)
    optimizer = FusedDecaySGD([first, second], lr=0.5, schedule=ExponentialLR(0.5), backend=backend)
    optimizer.step()
    group = optimizer.param_groups[0]
    optimizer.param_groups = [{**group, "params": [first]}, {**group, "params": [second]}]
    optimizer.step()
    assert rates(optimizer) == [0.125, 0.125]
    assert [group["schedule"]["epoch"] for group in optimizer.param_groups] == [2, 2]


@pytest.mark.parametrize("every", [2, 3])
def test_each_group_counts_its_own_steps_to_a_schedule_step(backend, every):
    optimizer = made(backend, ExponentialLR(0.5), 2, schedule_every=every)
    groups = optimizer.param_groups
    for _ in range(2 * every):
        for group in groups:
            optimizer.param_groups = [group]
            optimizer.step()
    optimizer.param_groups = groups
    assert rates(optimizer) == [0.025, 0.005]
    assert optimizer.lr_used == [0.05, 0.01]


def test_a_function_is_not_called_again_for_groups_in_turn(backend):
    called = []

    def function(epoch):
        called.append(epoch)
        return 0.5**epoch

    optimizer = made(backend, LambdaLR(function), 2)
    groups = optimizer.param_groups
    before = len(called)
    for _ in range(10):
        for group in groups:
            optimizer.param_groups = [group]
            optimizer.step()
    assert len(called) - before < 2 * 1024 + 20


def test_an_empty_group_comes_back_to_its_slot(backend):
    optimizer = FusedDecaySGD(
        [{"params": []}, *groups_of(parameters(1))], lr=0.5, backend=backend,
        schedule=LambdaLR([lambda e: 0.5**e, lambda e: 0.6**e]),
    )  # fmt: skip
    optimizer.step()
    groups = optimizer.param_groups
    for group in groups:
        optimizer.param_groups = [group]
        optimizer.step()
    optimizer.param_groups = groups
    optimizer.step()
    assert_same_rates(rates(optimizer), [0.5 * 0.5**3, 0.1 * 0.6**3])


# -- the handle ----------------------------------------------------------------------------------


def test_a_list_that_was_read_does_not_hinder_a_group_that_joins(backend):
    optimizer = made(backend, [ExponentialLR(0.5)])
    assert optimizer.scheduler.base_lrs == [0.1, 0.02, 0.3]
    optimizer.add_param_group({"params": parameters(1), "lr": 0.4})
    optimizer.step()
    assert rates(optimizer) == [0.05, 0.01, 0.15, 0.2]
    assert optimizer.scheduler.base_lrs == [0.1, 0.02, 0.3, 0.4]
    optimizer.state_dict()


def test_the_handle_is_of_the_schedule_that_was_just_written(backend):
    optimizer = made(backend, None, 1, schedule_every=None)
    optimizer.param_groups[0]["schedule"] = ExponentialLR(0.5)
    optimizer.scheduler.gamma = 0.25
    optimizer.step()
    optimizer.scheduler.step()
    assert rates(optimizer) == [0.025]
    optimizer.param_groups[0]["schedule"] = ReduceLROnPlateau(factor=0.5, patience=0)
    for _ in range(2):
        optimizer.scheduler.step(1.0)
    assert rates(optimizer) == [0.0125]


def test_the_same_schedule_written_again_begins_again(backend):
    schedule = LambdaLR(lambda epoch: 0.5**epoch)
    optimizer = made(backend, schedule, 1)
    for _ in range(3):
        optimizer.step()
    optimizer.param_groups[0]["schedule"] = schedule
    optimizer.step()
    assert rates(optimizer) == [0.05]


def test_a_setting_of_a_plateau_leaves_each_groups_state(backend):
    optimizer = made(backend, ReduceLROnPlateau(factor=0.5, patience=1), 2)
    handle = optimizer.scheduler
    handle.step(1.0)
    away = optimizer.param_groups.pop()
    handle.step(2.0)
    optimizer.param_groups.append(away)
    handle.cooldown = 3
    handle.step(2.0)
    assert rates(optimizer) == [0.05, 0.01]


# -- errors --------------------------------------------------------------------------------------


def test_a_list_that_is_refused_may_be_mended(backend):
    optimizer = made(backend, ReduceLROnPlateau(patience=0))
    optimizer.step()
    good = optimizer.param_groups
    optimizer.param_groups = [{**good[0]}, {**good[1], "lr": "high"}]
    for _ in range(2):
        with pytest.raises(TypeError, match=r"param_groups\[1\]\['lr'\] must be one real number"):
            optimizer.step()
    optimizer.param_groups = good
    optimizer.step()
    optimizer.scheduler.step(1.0)
    optimizer.state_dict()


def test_a_bad_value_beside_a_removed_group_may_be_mended(backend):
    optimizer = made(backend, ExponentialLR(0.5))
    optimizer.step()
    optimizer.param_groups.pop(0)
    optimizer.param_groups[0]["schedule"] = 3
    for _ in range(2):
        with pytest.raises(TypeError, match="schedule"):
            optimizer.step()
    optimizer.param_groups[0]["schedule"] = ExponentialLR(0.25)
    optimizer.step()
    assert rates(optimizer) == [0.0025, 0.075]


@pytest.mark.parametrize("key", ["epoch", "steps_since", "metrics"])
@pytest.mark.parametrize("value", ["x", -1, 1.5, 2**70, None])
def test_a_checkpoint_with_another_place_is_refused_and_changes_nothing(backend, key, value):
    optimizer = made(backend, StepLR(2, 0.5), 1)
    for p in optimizer.param_groups[0]["params"]:
        p.grad = torch.ones_like(p)
    optimizer.step()
    saved = copy.deepcopy(optimizer.state_dict())
    saved["param_groups"][0]["schedule"][key] = value
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ValueError, match=key):
        optimizer.load_state_dict(saved)
    after = optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"]
    buffers = [state["state"][0]["momentum_buffer"] for state in (after, before)]
    assert_same_bits(*buffers)


def test_settings_of_the_optimizer_are_refused_in_an_appended_dict(backend):
    optimizer = made(backend, None, 2)
    group = {**optimizer.param_groups[0], "params": parameters(1), "amp": "fused"}
    optimizer.param_groups.append(group)
    with pytest.raises(ValueError, match=r"FusedDecaySGD\(amp=...\), and not of a group"):
        optimizer.step()
    with pytest.raises(ValueError, match="differentiable=True is not supported"):
        optimizer.add_param_group({"params": parameters(1), "differentiable": True})


# -- a tensor rate, and memory -------------------------------------------------------------------


def test_a_tensor_rate_keeps_its_double_through_every_edit(backend):
    rate = torch.tensor(0.3)
    params = parameters(2)
    optimizer = FusedDecaySGD(
        params[:1], lr=rate, schedule=ExponentialLR(0.9), schedule_every=None, backend=backend
    )
    exact = rate.item()
    handle = optimizer.scheduler
    for k in range(3):
        optimizer.step()
        handle.step()
        exact *= 0.9
        handle.gamma = 0.9
        with pytest.raises(TypeError):
            handle.gamma = [0.9]
        if k == 1:
            optimizer.add_param_group({"params": params[1:], "lr": 0.1})
        assert handle.get_last_lr()[0] == exact


def test_a_group_that_left_is_forgotten_with_its_parameters(backend):
    optimizer = made(backend, ExponentialLR(0.9), 1)
    alive = []
    for _ in range(20):
        optimizer.param_groups.clear()
        optimizer.state.clear()
        params = parameters(1)
        alive.append(weakref.ref(params[0]))
        optimizer.add_param_group({"params": params})
        optimizer.step()
        del params
    gc.collect()
    assert sum(ref() is not None for ref in alive) == 1
    assert len(optimizer.scheduler.base_lrs) <= 2  # its slot goes when the next group joins
