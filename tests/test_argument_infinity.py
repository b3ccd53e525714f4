"""Infinity and huge numbers as numbers of steps: they mean never, as in torch."""

import math
import sys
import warnings

import pytest
from support.arguments import optimizer_of, reloaded
from support.loops import groups_of
from support.twin import rates, sgd
from torch.optim import lr_scheduler

import lrfused
from lrfused import FusedDecaySGD, fuse

ENDLESS = {
    "StepLR": lambda kind, opt, n: kind.StepLR(*opt, n),
    "MultiStepLR": lambda kind, opt, n: kind.MultiStepLR(*opt, [7, n, n]),
    "ConstantLR": lambda kind, opt, n: kind.ConstantLR(*opt, 0.5, n),
    "LinearLR": lambda kind, opt, n: kind.LinearLR(*opt, 0.5, 1.0, n),
    "PolynomialLR": lambda kind, opt, n: kind.PolynomialLR(*opt, n),
    "CosineAnnealingLR": lambda kind, opt, n: kind.CosineAnnealingLR(*opt, n, 0.01),
    "CosineAnnealingWarmRestarts": lambda k, opt, n: k.CosineAnnealingWarmRestarts(*opt, n),
    "T_mult": lambda kind, opt, n: kind.CosineAnnealingWarmRestarts(*opt, 7, n),
    "OneCycleLR": lambda kind, opt, n: kind.OneCycleLR(*opt, 0.5, n),
    "CyclicLR": lambda kind, opt, n: kind.CyclicLR(*opt, 0.1, 0.5, n, cycle_momentum=False),
    "CyclicLR-down": lambda kind, opt, n: kind.CyclicLR(*opt, 0.1, 0.5, 7, n, cycle_momentum=False),
    "patience": lambda kind, opt, n: kind.ReduceLROnPlateau(*opt, patience=n),
    "cooldown": lambda kind, opt, n: kind.ReduceLROnPlateau(*opt, patience=1, cooldown=n),
    "SequentialLR": lambda kind, opt, n: kind.SequentialLR(
        *opt, [kind.ExponentialLR(*opt, 0.99), kind.StepLR(*opt, 3)], [n]
    ),
    "SequentialLR-later": lambda kind, opt, n: kind.SequentialLR(
        *opt, [kind.StepLR(*opt, 3), kind.ConstantLR(*opt, 0.5, n)], [5]
    ),
}


@pytest.mark.parametrize("never", [math.inf, sys.maxsize, 2**62, 2**70, float(2**63)], ids=str)
@pytest.mark.parametrize("kind", ENDLESS)
def test_infinity_and_huge_numbers_mean_never(kind, never):
    theirs = sgd(groups_of([0.5]), lr=0.5)
    try:
        scheduler = ENDLESS[kind](lr_scheduler, [theirs], never)
    except (ValueError, ZeroDivisionError):
        with pytest.raises(ValueError, match=r"must|Expected"):
            optimizer_of(ENDLESS[kind](lrfused, [], never))
        return
    if kind == "CyclicLR" and never == math.inf:  # NaN in torch
        with pytest.raises(ValueError, match=r"step_size_up=...\) must be above 0 and finite"):
            ENDLESS[kind](lrfused, [], never)
        return

    def make():
        return FusedDecaySGD(groups_of([0.5]), lr=0.5, schedule=ENDLESS[kind](lrfused, [], never))

    ours = make()
    watched = isinstance(scheduler, lr_scheduler.ReduceLROnPlateau)
    opt = sgd(groups_of([0.5]), lr=0.5)
    fused, handle = fuse(opt, ENDLESS[kind](lr_scheduler, [opt], never))
    metric = [1.0] if watched else []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for step in range(3000):
            if step == 1500:
                saved = reloaded(ours.state_dict())
                ours = make()
                ours.load_state_dict(saved)
            theirs.step()
            scheduler.step(*metric)
            fused.step()
            handle.step(*metric)
            ours.step()
            if watched:
                ours.scheduler.step(1.0)
            assert rates(ours) == rates(fused) == rates(theirs), step
    reloaded(ours.state_dict())


def test_a_cooldown_counts_down_from_any_number():
    def make():
        plateau = lrfused.ReduceLROnPlateau(factor=0.5, patience=0, cooldown=2.5)
        return FusedDecaySGD(groups_of([0.5]), schedule=plateau)

    theirs = sgd(groups_of([0.5]), lr=0.5)
    scheduler = lr_scheduler.ReduceLROnPlateau(theirs, factor=0.5, patience=0, cooldown=2.5)
    ours = make()
    for _ in range(20):
        scheduler.step(1.0)
        ours.scheduler.step(1.0)
        saved = reloaded(ours.state_dict())
        ours = make()
        ours.load_state_dict(saved)
        assert rates(ours) == rates(theirs)
        assert ours.scheduler.state_dict()["cooldown_counter"] == scheduler.cooldown_counter


def test_a_number_of_steps_is_not_nan():
    with pytest.raises(ValueError, match=r"LinearLR\(total_iters=...\) must be a number of steps"):
        lrfused.LinearLR(total_iters=math.nan)


def test_a_setting_of_nan_equals_itself_in_a_checkpoint():
    ours = optimizer_of(lrfused.CosineAnnealingLR(3, math.nan))
    fresh = optimizer_of(lrfused.CosineAnnealingLR(3, math.nan))
    fresh.load_state_dict(reloaded(ours.state_dict()))
