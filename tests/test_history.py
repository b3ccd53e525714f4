"""The history of the rates, and the rates that the last step used."""

import math

import pytest
from cases import named
from support.loops import RATES, groups_of, parameter
from support.twin import rates

from lrfused import CosineAnnealingLR, ExponentialLR, FusedDecaySGD, ReduceLROnPlateau, StepLR

pytestmark = pytest.mark.backends("host", "emulated", reason="test_gpu.py runs schedules on a GPU")


def test_every_schedule_step_is_remembered(backend):
    opt = FusedDecaySGD(groups_of(RATES[2]), schedule=CosineAnnealingLR(20), backend=backend)
    assert opt.lr_history() == ([], [], [])
    seen = []
    for _ in range(50):
        opt.step()
        seen.append(rates(opt))
    assert opt.lr_history() == (list(range(1, 51)), seen, [])


def test_only_the_last_are_remembered(backend):
    opt = FusedDecaySGD(
        [parameter()], schedule=ExponentialLR(0.999), schedule_every=None, backend=backend
    )
    opt.step()
    seen = []
    for _ in range(1500):
        opt.scheduler.step()
        seen.append(rates(opt))
    history = opt.lr_history()
    assert history.steps == list(range(1500 - 1024 + 1, 1501))
    assert history.lrs == seen[-1024:]


def test_the_cuts_of_a_plateau_are_marked(backend):
    schedule = [ExponentialLR(0.9), ReduceLROnPlateau(patience=0, factor=0.5)]
    opt = FusedDecaySGD(groups_of([0.1]), schedule=schedule, backend=backend)
    events = []
    for step in range(1, 10):
        opt.step()
        events.append((step, rates(opt), False))
        if step % 3 == 0:
            before = rates(opt)
            opt.scheduler.step(1.0)
            if rates(opt) != before:
                events.append((step, rates(opt), True))
    history = opt.lr_history()
    assert list(zip(history.steps, history.lrs, strict=True)) == [e[:2] for e in events]
    assert history.cuts == [i for i, event in enumerate(events) if event[2]]
    assert [history.steps[i] for i in history.cuts] == [6, 9]


def test_a_metric_that_cuts_nothing_is_not_remembered(backend):
    opt = FusedDecaySGD(groups_of([0.1]), schedule=ReduceLROnPlateau(), backend=backend)
    opt.scheduler.step(1.0)
    assert opt.lr_history().steps == []


def test_a_rate_that_is_no_number_is_never_cut(backend):
    schedule = ReduceLROnPlateau(patience=0, factor=0.5)
    opt = FusedDecaySGD(groups_of([0.1]), schedule=schedule, backend=backend)
    opt.param_groups[0]["lr"] = math.nan
    for metric in (1.0, 2.0, 3.0):
        opt.scheduler.step(metric)
    assert opt.lr_history().cuts == []


def test_a_group_that_joins_has_no_past(backend):
    opt = FusedDecaySGD(groups_of([0.1]), schedule=StepLR(2, 0.5), backend=backend)
    opt.step()
    opt.add_param_group(groups_of([0.3])[0])
    opt.step()
    (old, new) = opt.lr_history().lrs
    assert old[0] == 0.1
    assert math.isnan(old[1])
    assert new == [0.05, 0.15]


@pytest.mark.parametrize("capturable", [False, True])
def test_the_rate_used_is_told_from_the_next(backend, capturable):
    p = parameter()
    opt = FusedDecaySGD(
        [p], lr=0.1, schedule=named("StepLR-each")[0].ours(), backend=backend,
        capturable=capturable,
    )  # fmt: skip
    for _ in range(4):
        before = float(rates(opt)[0])
        opt.step()
        assert opt.lr_used == [before]
        assert float(rates(opt)[0]) == before * 0.5
    opt.param_groups[0]["lr"] = 0.7
    assert opt.lr_used == [before]
    opt.step()
    assert opt.lr_used == [0.7]


def test_a_resumed_run_counts_on(backend):
    opt = FusedDecaySGD(groups_of([0.1]), schedule=StepLR(2, 0.5), backend=backend)
    for _ in range(5):
        opt.step()
    again = FusedDecaySGD(groups_of([0.1]), schedule=StepLR(2, 0.5), backend=backend)
    again.load_state_dict(opt.state_dict())
    again.step()
    assert again.lr_history().steps == [6]
