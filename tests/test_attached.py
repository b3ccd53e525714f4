"""A torch scheduler attached to a FusedDecaySGD in the ordinary way."""

import warnings
from contextlib import nullcontext

import pytest
from cases import STEPPED, fading
from support.bits import assert_same_rates
from support.loops import RATES, epoch_of, groups_of, momenta, parameter
from support.twin import rates, sgd
from torch.optim import lr_scheduler

from lrfused import ExponentialLR, FusedDecaySGD

pytestmark = pytest.mark.backends(
    "host", reason="test_device_schedule.py runs schedules on a device"
)

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


@pytest.mark.parametrize("ours_first", [True, False], ids=["exponential-case", "case-exponential"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_beside_one_of_ours_both_act_as_two_of_torchs_do(case, ours_first):
    schedule = ExponentialLR(0.9) if ours_first else case.ours()
    ours = FusedDecaySGD(groups_of(RATES[2]), lr=0.5, schedule=schedule)
    theirs = sgd(groups_of(RATES[2]), lr=0.5)
    if ours_first:
        first = lr_scheduler.ExponentialLR(theirs, 0.9)
        attached, other = case.torchs(ours), case.torchs(theirs)
    else:
        first = case.torchs(theirs)
        attached, other = (lr_scheduler.ExponentialLR(o, 0.9) for o in (ours, theirs))
    for step in range(20):
        with pytest.warns(UserWarning, match="both act") if step == 0 else nullcontext():
            ours.step()
        theirs.step()
        for scheduler in (first, attached, other):
            scheduler.step()
        assert_same_rates(rates(ours), rates(theirs), f"step {step}")
        assert_same_rates(momenta(ours), momenta(theirs), f"step {step}")


def test_the_warning_comes_once_and_names_the_schedule(backend):
    ours = FusedDecaySGD([parameter()], lr=0.1, schedule=ExponentialLR(0.5), backend=backend)
    lr_scheduler.StepLR(ours, 2)
    text = r"whose step moves a schedule, ExponentialLR: both act"
    with pytest.warns(UserWarning, match=text) as told:
        ours.step()
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            ours.step()


@pytest.mark.parametrize("hook", [None, "register_step_pre_hook", "register_step_post_hook"])
def test_one_attached_after_some_steps_is_warned_of_too(hook):
    ours = FusedDecaySGD([parameter()], lr=0.1, schedule=ExponentialLR(0.5))
    ours.step()
    if hook:
        getattr(ours, hook)(lambda *_: None)
    attached = lr_scheduler.LambdaLR(ours, fading)
    with pytest.warns(UserWarning, match="both act") as told:
        ours.step()
    assert told[0].filename == __file__
    attached.step()
    assert rates(ours) == attached.get_last_lr()


def test_a_range_test_or_a_plot_before_it_leaves_the_schedule_going():
    ours = FusedDecaySGD([parameter()], lr=0.1, schedule=ExponentialLR(0.5))
    finder = lr_scheduler.ExponentialLR(ours, 2.0)
    with pytest.warns(UserWarning, match="both act"):
        ours.step()
    finder.step()
    del finder
    lr_scheduler.LambdaLR(ours, lambda epoch: 1.0)  # to plot it, say
    ours.param_groups[0]["lr"] = 0.1
    for step in range(1, 4):
        ours.step()
        assert rates(ours) == [0.1 * 0.5**step]


def test_a_flag_of_torchs_set_by_hand_means_nothing():
    ours = FusedDecaySGD([parameter()], lr=0.1, schedule=ExponentialLR(0.5))
    ours._opt_called = True
    ours.step()
    assert rates(ours) == [0.05]


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
