"""A torch scheduler attached to a FusedDecaySGD in the ordinary way."""

import warnings

import pytest
from bits import assert_same_rates
from cases import STEPPED, fading
from loops import RATES, epoch_of, groups_of, momenta, parameter
from torch.optim import lr_scheduler
from twin import rates, sgd

from lrfused import ExponentialLR, FusedDecaySGD

CASES = [case for case in STEPPED if case.groups is None]


# Before 2.10 torch's own schedulers mix up tensors of rates with those they keep.
FLOATS_ONLY = not hasattr(lr_scheduler, "_update_param_group_val")


@pytest.mark.parametrize("capturable", [False] if FLOATS_ONLY else [False, True])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_without_a_schedule_of_ours_it_gives_torchs_results(case, capturable):
    ours = FusedDecaySGD(groups_of(RATES[2]), lr=0.5, capturable=capturable)
    theirs = sgd(groups_of(RATES[2]), lr=0.5)
    attached, other = case.torchs(ours), case.torchs(theirs)
    for step in range(40):
        ours.step()
        theirs.step()
        attached.step()
        other.step()
        ours_now = [float(rate) for rate in rates(ours)]
        assert_same_rates(ours_now, rates(theirs), f"step {step}")
        assert_same_rates(momenta(ours), momenta(theirs), f"step {step}")
    assert epoch_of(attached) == epoch_of(other)


def test_with_one_of_ours_it_wins_and_both_are_named_once(backend):
    ours = FusedDecaySGD([parameter()], lr=0.1, schedule=ExponentialLR(0.5), backend=backend)
    theirs = sgd([parameter()], lr=0.1)
    schedulers = [lr_scheduler.LambdaLR(opt, fading) for opt in (ours, theirs)]
    with pytest.warns(UserWarning, match=r"LambdaLR .* ExponentialLR"):
        ours.step()
    theirs.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(10):
            for scheduler in schedulers:
                scheduler.step()
            assert rates(ours) == rates(theirs)
            ours.step()
            theirs.step()


def test_a_relative_one_wins_too(backend):
    ours = FusedDecaySGD([parameter()], lr=0.1, schedule=ExponentialLR(0.5), backend=backend)
    attached = lr_scheduler.StepLR(ours, 2, gamma=0.3)
    with pytest.warns(UserWarning, match=r"StepLR .* ExponentialLR"):
        ours.step()
    attached.step()
    ours.step()
    attached.step()
    assert rates(ours) == [0.1 * 0.3]
    assert ours.scheduler.last_epoch == 0


def test_a_plateau_on_top_multiplies(backend):
    ours = FusedDecaySGD([parameter()], lr=0.1, schedule=ExponentialLR(0.5), backend=backend)
    attached = lr_scheduler.ReduceLROnPlateau(ours, patience=0, factor=0.1)
    attached.step(1.0)
    ours.step()
    attached.step(2.0)
    assert rates(ours) == [0.1 * 0.5 * 0.1]
    ours.step()
    assert rates(ours) == [0.1 * 0.5 * 0.1 * 0.5]


@pytest.mark.parametrize("case", CASES[::4], ids=str)
def test_two_that_are_stepped_by_hand_take_turns_as_in_torch(backend, case):
    first = ExponentialLR(0.9)
    ours = FusedDecaySGD(
        groups_of(RATES[2]), lr=0.5, schedule=first, schedule_every=None, backend=backend
    )
    theirs = sgd(groups_of(RATES[2]), lr=0.5)
    pairs = [(ours.scheduler, lr_scheduler.ExponentialLR(theirs, 0.9))]
    pairs.append((case.torchs(ours), case.torchs(theirs)))
    for step in range(30):
        ours.step()
        theirs.step()
        for mine, other in pairs if step % 5 else pairs[::-1]:
            mine.step()
            other.step()
        assert_same_rates(rates(ours), rates(theirs), f"step {step}")
        assert_same_rates(momenta(ours), momenta(theirs), f"step {step}")


def test_one_whose_wrapped_step_was_wrapped_again_wins_too(backend):
    ours = FusedDecaySGD([parameter()], lr=0.1, schedule=ExponentialLR(0.5), backend=backend)
    attached = lr_scheduler.StepLR(ours, 1, gamma=0.3)
    wrapped = ours.step
    ours.step = lambda *args: wrapped(*args)  # as accelerate does, for one step
    with pytest.warns(UserWarning, match=r"StepLR .* ExponentialLR"):
        ours.step()
    ours.step = wrapped
    attached.step()
    assert rates(ours) == [0.1 * 0.3]
