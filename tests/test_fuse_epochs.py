"""Schedulers that are fused at an epoch that is no small integer."""

import math

import pytest
from support.fused import CLASSES, Pair, optimizer_of, pair_of
from torch.optim import lr_scheduler

from lrfused import fuse

STEPPED = [name for name in CLASSES if name not in ("SequentialLR", "ChainedScheduler")]
FRACTIONS = [4.5, 4.1, 0.3, 7.5, 6.0]  # additions of 1 round from 0.3 and 4.1, and not from 4.5
HUGE = [10**6, 10**9, 10**12, 10**12 - 1, 10**18, 1e12, 1e16]


@pytest.mark.parametrize("epoch", FRACTIONS)
@pytest.mark.parametrize("name", STEPPED)
def test_a_scheduler_goes_on_from_a_fraction_of_an_epoch(name, epoch):
    pair = pair_of(name, lambda s: s.step(epoch))
    pair.run(40)


@pytest.mark.parametrize("epoch", FRACTIONS)
@pytest.mark.parametrize("name", ["SequentialLR", "ChainedScheduler"])
def test_so_does_a_composition(name, epoch):
    def move(s):
        for member in s._schedulers:
            member.step(epoch)
        if name == "SequentialLR":
            s.last_epoch = epoch

    pair_of(name, move).run(40)


@pytest.mark.parametrize("name", ["StepLR", "LambdaLR", "CosineAnnealingLR", "MultiStepLR"])
def test_a_fraction_goes_on_past_the_end_of_a_table(name):
    """The tables end at step 1,024, and 0.1 is no binary fraction."""
    pair_of(name, lambda s: s.step(4.1)).run(1100, every=50)


@pytest.mark.parametrize("epoch", HUGE)
@pytest.mark.parametrize("name", CLASSES)
def test_a_scheduler_goes_on_from_a_huge_epoch(name, epoch):
    def move(s):
        for one in (s, *getattr(s, "_schedulers", ())):
            if hasattr(one, "last_epoch"):
                one.last_epoch = epoch

    pair_of(name, move).run(8)


@pytest.mark.parametrize(
    "make",
    [
        lambda o, n: lr_scheduler.CosineAnnealingLR(o, n + 1000, 1e-3),
        lambda o, n: lr_scheduler.PolynomialLR(o, n + 5, 2.0),
        lambda o, n: lr_scheduler.LinearLR(o, 0.1, 1.0, n + 50),
        lambda o, n: lr_scheduler.MultiStepLR(o, [n + 2, n + 2, 2 * n], 0.5),
        lambda o, n: lr_scheduler.StepLR(o, n // 2 + 3, 0.5),
        lambda o, n: lr_scheduler.ConstantLR(o, 0.5, n + 3),
    ],
    ids=["cosine", "polynomial", "linear", "milestones", "step", "constant"],
)
@pytest.mark.parametrize("epoch", [10**6, 10**9, 10**12, 10**17])
def test_a_run_may_end_at_a_huge_epoch(make, epoch):
    """Where torch divides by zero, both fail at the same step."""

    def move(s):
        s.last_epoch = epoch

    Pair(lambda o: make(o, epoch), move).run(60)


@pytest.mark.parametrize("epoch", [2**61, 10**30, -(10**30), math.inf, math.nan])
def test_an_epoch_that_no_counter_holds_is_refused(epoch):
    def move(s):
        s.last_epoch = epoch

    with pytest.raises(ValueError, match=r"StepLR\.last_epoch must be less than 2\*\*61, got"):
        pair_of("StepLR", move)


@pytest.mark.parametrize("epoch", [2**61, 10**30, 1e30])
def test_so_is_one_that_the_handle_is_given(epoch):
    handle = pair_of("StepLR").handle
    with pytest.raises(ValueError, match=r"scheduler\.last_epoch must be less than 2\*\*61"):
        handle.last_epoch = epoch
    with pytest.raises(ValueError, match=r"scheduler\.last_epoch must be less than 2\*\*61"):
        handle.step(epoch)
    assert handle.last_epoch == 1


class Decaying(lr_scheduler.LRScheduler):
    def get_lr(self):
        return [0.1 / (1 + self._step_count) for _ in self.base_lrs]


@pytest.mark.parametrize("epoch", [4.5, 4.1, 10**12])
def test_a_recorded_scheduler_goes_on_from_any_epoch(epoch):
    def move(s):
        s.last_epoch = epoch

    pair = Pair(Decaying, move, total_steps=1100)
    pair.run(1100, every=100)
    with pytest.raises(ValueError, match="total_steps=1100"):
        pair.handle.step()


def test_a_tape_is_played_although_a_float_counts_no_further():
    """1e16 + 1 is 1e16."""

    def move(s):
        s.last_epoch = 1e16

    pair = Pair(Decaying, move, total_steps=5)
    for _ in range(5):
        pair.scheduler.step()
        pair.handle.step()
        assert pair.ours.param_groups[0]["lr"] == pair.theirs.param_groups[0]["lr"]
    with pytest.raises(ValueError, match="total_steps=5"):
        pair.handle.step()


def test_a_recorded_scheduler_with_an_endless_epoch_is_named():
    def move(s):
        s.last_epoch = 2**61

    with pytest.raises(ValueError, match=r"Decaying\.last_epoch must be less than"):
        Pair(Decaying, move, total_steps=5)


@pytest.mark.parametrize("epoch", [10**12, 4.5])
def test_a_plateau_counts_on_from_any_epoch(epoch):
    optimizer = optimizer_of()
    plateau = lr_scheduler.ReduceLROnPlateau(optimizer)
    plateau.last_epoch = epoch
    _, handle = fuse(optimizer, plateau)
    handle.step(1.0)
    assert handle.last_epoch == epoch + 1


@pytest.mark.parametrize("key", ["patience", "cooldown", "num_bad_epochs", "cooldown_counter"])
def test_a_count_that_is_no_double_is_named(key):
    optimizer = optimizer_of()
    plateau = lr_scheduler.ReduceLROnPlateau(optimizer)
    setattr(plateau, key, 10**400)
    with pytest.raises(TypeError, match=rf"ReduceLROnPlateau\({key}=...\) must fit into a double"):
        fuse(optimizer, plateau)
