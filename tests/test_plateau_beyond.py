"""ReduceLROnPlateau's options beyond torch's, off by default: equal to torch's fed otherwise."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.loops import groups_of, parameter
from support.twin import rates, sgd
from torch.optim import lr_scheduler

from lrfused import ExponentialLR, FusedDecaySGD, ReduceLROnPlateau

pytestmark = pytest.mark.backends(
    "host", reason="test_device_schedule.py runs schedules on a device"
)

METRICS = st.lists(st.sampled_from([0.1, 0.3, 0.25, 0.7, 1.0, math.nan, 0.05]), max_size=60)


class Pair:
    """A plateau of ours, and torch's, which is fed what ours is said to decide on."""

    def __init__(self, backend, **beyond):
        kwargs = {"patience": 1, "factor": 0.5, "cooldown": 1}
        self.opt = FusedDecaySGD(
            groups_of([0.1, 0.2]), schedule=ReduceLROnPlateau(**kwargs, **beyond), backend=backend
        )
        self.torchs = sgd(groups_of([0.1, 0.2]), lr=0.1)
        self.plateau = lr_scheduler.ReduceLROnPlateau(self.torchs, **kwargs)

    def feed(self, metric, decided_on=None):
        self.opt.scheduler.step(metric)
        if decided_on is not None:
            self.plateau.step(decided_on)
        assert rates(self.opt) == rates(self.torchs)
        ours = self.opt.scheduler.state_dict()
        for key in ("best", "num_bad_epochs", "cooldown_counter"):
            assert repr(ours[key]) == repr(getattr(self.plateau, key)), key


@settings(deadline=None, derandomize=True)
@given(METRICS, st.integers(2, 5))
def test_a_decision_is_made_on_the_mean_of_n(backend_name, metrics, n):
    pair = Pair(backend_name, accumulate=n)
    total, count = 0.0, 0
    for metric in metrics:
        total, count = total + metric, count + 1
        decided_on = total / n if count == n else None
        if count == n:
            total, count = 0.0, 0
        pair.feed(torch.tensor(metric, dtype=torch.float64), decided_on)


@settings(deadline=None, derandomize=True)
@given(METRICS)
def test_nan_is_dropped_if_asked(backend_name, metrics):
    pair = Pair(backend_name, nan="ignore")
    for metric in metrics:
        pair.feed(metric, None if math.isnan(metric) else metric)


@pytest.fixture(scope="module", params=["compiled", "reference"])
def backend_name(request):
    """Return a backend's name; hypothesis refuses fixtures of a function's scope."""
    from lrfused import backends

    if backends.available()[request.param]:
        pytest.skip(f"{request.param}: {backends.available()[request.param]}")
    return request.param


def test_a_nan_that_is_dropped_is_not_counted(backend):
    pair = Pair(backend, nan="ignore", accumulate=2)
    for metric in (1.0, math.nan, math.nan):
        pair.feed(metric)
    pair.feed(3.0, decided_on=2.0)


def test_a_half_filled_mean_is_saved_and_resumed(backend):
    schedule = [ExponentialLR(0.99), ReduceLROnPlateau(patience=0, factor=0.5, accumulate=3)]
    opt, again = (
        FusedDecaySGD(groups_of([0.1]), schedule=schedule, backend=backend) for _ in range(2)
    )
    metrics = [1.0, 2.0, 0.5, 1.5, 2.5, 0.25, 3.0, 4.0, 1.0, 0.0, 0.5]
    for metric in metrics[:5]:
        opt.step()
        opt.scheduler.step(metric)
    again.load_state_dict(opt.state_dict())
    for metric in metrics[5:]:
        for one in (opt, again):
            one.step()
            one.scheduler.step(metric)
        assert rates(opt) == rates(again)
    assert rates(opt)[0] < 0.1 * 0.99**11


def test_a_loss_of_every_step_may_drive_it(backend):
    p = parameter()
    schedule = ReduceLROnPlateau(patience=2, factor=0.5, accumulate=5)
    opt = FusedDecaySGD([p], lr=0.1, schedule=schedule, backend=backend)
    for _ in range(60):
        loss = (p * 0 + 1.0).sum()
        loss.backward()
        opt.step()
        opt.scheduler.step(loss)  # with its graph
    assert rates(opt) == [0.1 * 0.5**3]  # 12 decisions: the first, then every third


def test_the_state_of_one_without_them_is_torchs_and_nothing_else():
    ours = FusedDecaySGD([parameter()], lr=0.1, schedule=ReduceLROnPlateau())
    theirs = lr_scheduler.ReduceLROnPlateau(sgd([parameter()], lr=0.1))
    assert set(ours.scheduler.state_dict()) == set(theirs.state_dict())


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"accumulate": 0}, "accumulate"),
        ({"accumulate": 2.5}, "accumulate"),
        ({"nan": "skip"}, "nan"),
        ({"process_group": "world"}, "process_group"),
    ],
    ids=str,
)
def test_what_has_no_meaning_is_refused(kwargs, match):
    with pytest.raises((ValueError, TypeError), match=match):
        FusedDecaySGD([parameter()], lr=0.1, schedule=ReduceLROnPlateau(**kwargs))
