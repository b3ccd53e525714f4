"""Checkpoints of a schedule with other settings: refused by name, or taken over if asked."""

import copy

import pytest
from cases import Schedule, Wave, named
from support.bits import assert_same_rates
from support.loops import RATES
from support.runs import Ours, Torch
from support.twin import assert_unchanged, rates, snapshot

pytestmark = pytest.mark.backends(
    "host", reason="test_device_schedule.py runs schedules on a device"
)

OVERWRITTEN = {
    "LambdaLR": ({"lr_lambda": Wave(3.0)}, {"lr_lambda": Wave(7.0)}),
    "ReduceLROnPlateau": ({"patience": 9}, {"patience": 0, "factor": 0.5, "min_lr": 0.01}),
}
OTHERWISE = {
    "step_size": ("StepLR", {"step_size": 5}, {"step_size": 3}),
    "milestones": ("MultiStepLR", {"milestones": [4]}, {"milestones": [4, 4]}),
    "gamma": ("ExponentialLR", {"gamma": 0.9}, {"gamma": 0.5}),
    "T_max": ("CosineAnnealingLR", {"T_max": 5}, {"T_max": 16}),
    "factor": ("ConstantLR", {"factor": 0.5}, {"factor": 0.25}),
    "total_iters": ("LinearLR", {"total_iters": 50}, {"total_iters": 60}),
    "power": ("PolynomialLR", {"total_iters": 70}, {"total_iters": 70, "power": 2.0}),
    "T_mult": ("CosineAnnealingWarmRestarts", {"T_0": 4}, {"T_0": 4, "T_mult": 2}),
    "max_lrs": (
        "CyclicLR",
        {"base_lr": 0.1, "max_lr": 0.2, "step_size_up": 9},
        {"base_lr": 0.1, "max_lr": 0.3, "step_size_up": 9},
    ),
    "total_steps": (
        "OneCycleLR",
        {"max_lr": 0.2, "total_steps": 70},
        {"max_lr": 0.2, "total_steps": 80},
    ),
    "_milestones": (
        "SequentialLR",
        {"schedulers": named("LinearLR-default", "ExponentialLR-usual"), "milestones": [5]},
        {"schedulers": named("LinearLR-default", "ExponentialLR-usual"), "milestones": [6]},
    ),
    "gamma=0.9991, this optimizer's 0.9": (
        "ChainedScheduler",
        {"schedulers": named("LinearLR-default", "ExponentialLR-usual")},
        {"schedulers": named("LinearLR-default", "ExponentialLR-slow")},
    ),
}


def state_after(case, steps):
    donor = Torch(case, RATES[2])
    for number in range(steps):
        donor.step(number)
    return copy.deepcopy(donor.scheduler.state_dict())


@pytest.mark.parametrize("kind", OVERWRITTEN)
def test_loading_overwrites_as_in_torch(backend, kind):
    built, stored = (Schedule(kind, kind, copy.deepcopy(kwargs)) for kwargs in OVERWRITTEN[kind])
    state = state_after(stored, 12)
    want, ours = Torch(copy.deepcopy(built), RATES[2]), Ours(built, RATES[2], backend)
    for run in (want, ours):
        for number in range(3):
            run.step(number)
        run.scheduler.load_state_dict(copy.deepcopy(state))
    assert rates(ours.opt) == rates(want.opt)
    for number in range(12, 60):
        want.step(number)
        ours.step(number)
        assert_same_rates(rates(ours.opt), rates(want.opt), f"at {number}")
    assert ours.scheduler.last_epoch == want.scheduler.last_epoch


@pytest.mark.parametrize("name", OTHERWISE)
def test_a_schedule_configured_otherwise_is_refused_by_name(backend, name):
    # torch takes the stored numbers over without a word: a longer T_max would be lost on resuming.
    kind, mine, theirs = OTHERWISE[name]
    run = Ours(Schedule(kind, kind, mine), RATES[2], backend)
    for number in range(3):
        run.step(number)
    before = snapshot(run.opt)
    with pytest.raises(ValueError, match=name):
        run.scheduler.load_state_dict(state_after(Schedule(kind, kind, theirs), 12))
    assert_unchanged(run.opt, before)


@pytest.mark.parametrize("name", OTHERWISE)
def test_a_schedule_configured_otherwise_is_taken_over_if_asked(backend, name):
    kind, mine, theirs = OTHERWISE[name]
    state = state_after(Schedule(kind, kind, theirs), 12)
    built = Schedule(kind, kind, mine)
    want, ours = Torch(built, RATES[2]), Ours(built, RATES[2], backend)
    want.scheduler.load_state_dict(copy.deepcopy(state))
    ours.scheduler.load_state_dict(copy.deepcopy(state), override=True)
    for number in range(12, 60):
        want.step(number)
        ours.step(number)
        assert_same_rates(rates(ours.opt), rates(want.opt), f"at {number}")


def test_a_checkpoint_configured_otherwise_is_taken_over_if_asked(backend):
    saved = Ours(named("CosineAnnealingLR-ten")[0], RATES[2], backend)
    for number in range(7):
        saved.step(number)
    run = Ours(named("CosineAnnealingLR-long")[0], RATES[2], backend)
    before = snapshot(run.opt)
    with pytest.raises(ValueError, match=r"T_max=10, this optimizer's 2000; override=True"):
        run.opt.load_state_dict(saved.opt.state_dict())
    assert_unchanged(run.opt, before)
    run.opt.load_state_dict(copy.deepcopy(saved.opt.state_dict()), override=True)
    for number in range(7, 40):
        saved.step(number)
        run.step(number)
        assert rates(run.opt) == rates(saved.opt)
