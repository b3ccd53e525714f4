"""The ends of schedules, errors half way, and checkpoints that went through other hands."""

import copy
import math
import pickle
import warnings

import pytest
import torch
from support.loops import groups_of, momenta, parameter
from support.twin import rates, sgd
from torch.optim import lr_scheduler

import lrfused
from lrfused import (
    CyclicLR,
    ExponentialLR,
    FusedDecaySGD,
    LambdaLR,
    OneCycleLR,
    ReduceLROnPlateau,
    StepLR,
    fuse,
)

pytestmark = pytest.mark.backends(
    "host", reason="test_device_schedule.py runs schedules on a device"
)


def ended(backend, **extra):
    opt = FusedDecaySGD(
        groups_of([0.1]), momentum=0.9, schedule=OneCycleLR(0.5, 3), backend=backend, **extra
    )
    for _ in range(3):
        opt.step()
    return opt


def same(a, b):
    assert (rates(a), momenta(a)) == (rates(b), momenta(b))
    assert a.scheduler.last_epoch == b.scheduler.last_epoch


def test_a_schedule_that_has_ended_is_saved_and_copied(backend):
    opt = ended(backend)
    again = FusedDecaySGD(
        groups_of([0.1]), momentum=0.9, schedule=OneCycleLR(0.5, 3), backend=backend
    )
    again.load_state_dict(opt.state_dict())
    for other in (again, copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))):
        same(other, opt)
        with pytest.raises(ValueError, match="Tried to step 4 times"):
            other.step()
        same(other, opt)
    opt.add_param_group({**groups_of([0.7])[0], "schedule": None})
    assert rates(opt)[1] == 0.7


def test_a_schedule_that_has_ended_is_fused(backend):
    torchs = sgd(groups_of([0.1]), lr=0.1, momentum=0.9)
    scheduler = lr_scheduler.OneCycleLR(torchs, 0.5, 3)
    for _ in range(3):
        torchs.step()
        scheduler.step()
    opt, handle = fuse(torchs, scheduler, backend=backend)
    assert (rates(opt), handle.last_epoch) == (rates(torchs), 3)
    with pytest.raises(ValueError, match="Tried to step 4 times"):
        handle.step()


def test_a_function_that_ends_is_refused_in_its_turn(backend):
    table = [1.0, 0.5]
    schedule = LambdaLR(lambda epoch: table[epoch])
    opt = FusedDecaySGD(groups_of([0.1]), schedule=schedule, backend=backend)
    opt.step()
    opt.add_param_group({**groups_of([0.3])[0], "schedule": StepLR(1, 0.5)})
    for _ in range(2):
        with pytest.raises(IndexError):
            opt.step()
        assert rates(opt) == [0.05, 0.3]


def test_a_checkpoint_of_a_longer_schedule_every_goes_on(backend):
    saved, loaded = (
        FusedDecaySGD(
            groups_of([0.1]), schedule=ExponentialLR(0.5), schedule_every=every, backend=backend
        )
        for every in (4, 2)
    )
    for _ in range(3):
        saved.step()
    loaded.load_state_dict(saved.state_dict())
    for expected in (0.05, 0.05, 0.025):
        loaded.step()
        assert rates(loaded) == [expected]


def test_a_checkpoint_that_torch_trained_on_does_not_bring_the_old_epoch_back(backend):
    first = FusedDecaySGD(groups_of([0.1]), schedule=StepLR(5, 0.5), backend=backend)
    for _ in range(3):
        first.step()
    torchs = sgd(groups_of([0.1]), lr=0.1)
    scheduler = lr_scheduler.StepLR(torchs, 5, 0.5)
    torchs.load_state_dict(first.state_dict())
    scheduler.load_state_dict(first.scheduler.state_dict())
    for _ in range(6):
        torchs.step()
        scheduler.step()
    back = FusedDecaySGD(groups_of([0.9]), schedule=StepLR(5, 0.5), backend=backend)
    back.scheduler.load_state_dict(scheduler.state_dict())
    with pytest.warns(UserWarning, match="another optimizer went on"):
        back.load_state_dict(torchs.state_dict())
    fused, _ = fuse(torchs, scheduler, schedule_every=1, backend=backend)
    for _ in range(8):
        for opt in (back, fused, torchs):
            opt.step()
        scheduler.step()
        assert rates(back) == rates(torchs) == rates(fused)


def test_a_recipe_is_a_setting_of_the_checkpoint(backend):
    shared = lrfused.cosine_with_warmup(3000, 10)
    kept, loaded = (
        FusedDecaySGD(groups_of([0.1]), schedule=shared, backend=backend) for _ in range(2)
    )
    other = FusedDecaySGD(
        groups_of([0.1]), schedule=lrfused.cosine_with_warmup(50, 5), backend=backend
    )
    with pytest.raises(ValueError, match=r"'total_steps': 50.*'total_steps': 3000.*override=True"):
        loaded.load_state_dict(other.state_dict())
    loaded.load_state_dict(other.state_dict(), override=True)
    for _ in range(30):
        kept.step()
        loaded.step()
        other.step()
    assert rates(loaded) == rates(other) != rates(kept)
    assert rates(kept) == [0.1 * shared.lr_lambda(30)]
    assert shared == lrfused.cosine_with_warmup(3000, 10)


@pytest.mark.parametrize("name", ["ReduceLROnPlateau", "CosineAnnealingLR", "StepLR"])
def test_a_group_that_joined_in_torch_is_fused(backend, name):
    kwargs = {
        "ReduceLROnPlateau": {},
        "CosineAnnealingLR": {"T_max": 40},
        "StepLR": {"step_size": 3},
    }
    torchs = sgd(groups_of([0.1]), lr=0.1)
    scheduler = getattr(lr_scheduler, name)(torchs, **kwargs[name])
    torchs.add_param_group(groups_of([0.3])[0])
    opt, handle = fuse(torchs, scheduler, backend=backend)
    for step in range(20):
        opt.step()
        torchs.step()
        fed = () if name != "ReduceLROnPlateau" else (1.0 + step % 3,)
        handle.step(*fed)
        scheduler.step(*fed)
        assert rates(opt) == rates(torchs)


def test_what_fuse_cannot_continue_is_refused_at_once(backend):
    class Halved(lr_scheduler.SequentialLR):
        def step(self):
            super().step()
            for group in self.optimizer.param_groups:
                group["lr"] *= 0.5

    class Plateau(lr_scheduler.ReduceLROnPlateau):
        pass

    opt = sgd(groups_of([0.1]), lr=0.1)
    with pytest.raises(TypeError, match="Halved"):
        fuse(opt, Halved(opt, [lr_scheduler.StepLR(opt, 3)], []), backend=backend)
    with pytest.raises(TypeError, match="Plateau decides on metrics"):
        fuse(opt, Plateau(opt), total_steps=5, backend=backend)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        chain = lr_scheduler.ChainedScheduler([lr_scheduler.StepLR(opt, 3)])
        sequence = lr_scheduler.SequentialLR(opt, [lr_scheduler.ConstantLR(opt), chain], [500])
    with pytest.raises(ValueError, match="ChainedScheduler at a milestone"):
        fuse(opt, sequence, backend=backend)
    joined = sgd(groups_of([0.1]), lr=0.1)
    scheduler = lr_scheduler.LambdaLR(joined, math.sqrt)
    joined.add_param_group(groups_of([0.3])[0])
    with pytest.raises(ValueError, match="lr_lambdas for 1 groups"):
        fuse(joined, scheduler, backend=backend)


@pytest.mark.parametrize("size", [2.5, 0.5, 1.5, 3.0])
def test_a_fractional_step_size_is_torchs(backend, size):
    torchs = sgd(groups_of([0.1]), lr=0.1)
    scheduler = lr_scheduler.StepLR(torchs, size)
    opt, handle = fuse(torchs, scheduler, backend=backend)
    for _ in range(12):
        opt.step()
        torchs.step()
        handle.step()
        scheduler.step()
        assert rates(opt) == rates(torchs)


def test_an_override_brings_the_momentum_cycle(backend):
    kwargs = {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 3}
    saved, loaded = (
        FusedDecaySGD(
            groups_of([0.1]), momentum=0.9, backend=backend,
            schedule=CyclicLR(**kwargs, cycle_momentum=cycle),
        )
        for cycle in (True, False)
    )  # fmt: skip
    saved.step()
    loaded.load_state_dict(saved.state_dict(), override=True)
    for _ in range(7):
        saved.step()
        loaded.step()
        same(saved, loaded)


def test_a_cycles_settings_in_the_groups_are_compared(backend):
    saved, loaded = (
        FusedDecaySGD(groups_of([0.1]), schedule=OneCycleLR(0.2, 50, **kwargs), backend=backend)
        for kwargs in ({"final_div_factor": 10}, {})
    )
    with pytest.raises(ValueError, match=r"min_lr=.*override=True"):
        loaded.load_state_dict(saved.state_dict())
    loaded.load_state_dict(saved.state_dict(), override=True)
    for _ in range(50):
        saved.step()
        loaded.step()
    same(saved, loaded)


def test_a_state_is_not_changed_by_a_group_that_joins_later(backend):
    opt = FusedDecaySGD(groups_of([0.1]), schedule=ExponentialLR(0.9), backend=backend)
    state, handle = opt.state_dict(), opt.scheduler.state_dict()
    opt.add_param_group(groups_of([0.3])[0])
    again = FusedDecaySGD(groups_of([0.1]), schedule=ExponentialLR(0.9), backend=backend)
    again.load_state_dict(state)
    again.scheduler.load_state_dict(handle)


def test_plateaus_alone_make_no_schedule_step(backend):
    opt = FusedDecaySGD(groups_of([0.1]), schedule=ReduceLROnPlateau(patience=0), backend=backend)
    for metric in (1.0, 2.0):
        opt.step()
        opt.scheduler.step(metric)
    assert opt.lr_history().cuts == [0]
    plain = FusedDecaySGD([parameter()], lr=0.1, backend=backend)
    plain.step()
    assert plain.lr_history().steps == []
    with pytest.raises(ValueError, match="has none"):
        plain.scheduler.step()


def test_no_rate_was_used_before_the_first_step(backend):
    opt = FusedDecaySGD([parameter()], lr=0.1, backend=backend)
    assert math.isnan(opt.lr_used[0])
    opt.step()
    assert opt.lr_used == [0.1]


def test_an_inference_tensor_is_refused_before_anything_is_written(backend):
    with torch.inference_mode():
        frozen = torch.ones(3)
    first = parameter()
    opt = FusedDecaySGD([first, frozen], lr=0.1, backend=backend)
    first.grad = torch.ones(1)
    with torch.inference_mode():
        frozen.grad = torch.ones(3)
    with pytest.raises(TypeError, match="inference mode"):
        opt.step()
    assert first.item() == 1.0
