"""ReduceLROnPlateau against torch's, decision for decision."""

import math

import numpy as np
import pytest
import torch
from cases import PLATEAUS, WITH_PLATEAU, Schedule
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.loops import RATES, Race, groups_of, parameter, product_ids, products
from support.twin import assert_unchanged, rates, snapshot

import lrfused
from lrfused import FusedDecaySGD, ReduceLROnPlateau, StepLR

pytestmark = pytest.mark.backends(
    "host", reason="test_device_schedule.py runs schedules on a device"
)

STATE = ["best", "num_bad_epochs", "cooldown_counter", "last_epoch", "_last_lr"]


def plateau(**kwargs):
    return Schedule("plateau", "ReduceLROnPlateau", kwargs)


def assert_same_decisions(race):
    """Compare the state of both plateaus, not only what came of it."""
    ours, theirs = race.opt.scheduler.state_dict(), race.torchs.schedulers[0].state_dict()
    for key in STATE:
        assert repr(ours[key]) == repr(theirs[key]), key


def race_through(metrics, case, backend, lrs=(0.1,)):
    race = Race([case], backend, lrs)
    for metric in metrics:
        race.step()
        race.feed(metric)
        assert_same_decisions(race)
    return race


NOISE = [1.0, 0.5, 0.6, 0.55, 0.49, 0.49, 0.7, 0.7, 0.3, 0.31, 0.29996, 0.31, 0.4, 0.5, 0.6, 0.0]
STREAMS = {
    "falling": [1 / (1 + n) for n in range(40)],
    "rising": [math.sqrt(n) for n in range(40)],
    "flat": [0.7] * 60,
    "noise": NOISE * 4,
    "negative": [-x for x in NOISE] * 3,
    "nan": [1.0, math.nan, 0.5, math.nan, math.nan, 0.4] * 8,
    "nan-first": [math.nan] * 5 + [1.0] + [math.nan] * 20,
    "inf-first": [math.inf, math.inf, 1.0, math.inf, 0.5] * 6,
    "minus-inf": [1.0, -math.inf, -math.inf, 0.5, 0.1, math.inf] * 6,
    "zeros": [0.0, -0.0] * 20,
    "large": [1e308, 1.7e308, -1.7e308, 1e-320, 5e-324, 0.0] * 5,
}


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
@pytest.mark.parametrize("pair", products(PLATEAUS), ids=product_ids)
def test_streams_equal_torchs(backend, pair, stream):
    case, count = pair
    race_through(stream, case, backend, RATES[count])


metrics = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.floats(-2, 2),
    st.sampled_from([0.0, -0.0, 1.0, 0.9999, 1.0001, math.inf, -math.inf, math.nan, 0.5]),
)
configs = st.fixed_dictionaries(
    {
        "mode": st.sampled_from(["min", "max"]),
        "factor": st.sampled_from([0.1, 0.5, 0.9, 0.0, 0.999, 0.3]),
        "patience": st.integers(0, 4),
        "threshold": st.sampled_from([0.0, 1e-4, 0.1, 1.0, 2.0, 1e-16]),
        "threshold_mode": st.sampled_from(["rel", "abs"]),
        "cooldown": st.integers(0, 4),
        "min_lr": st.sampled_from([0, 1e-3, 0.05, 0.3, [0.02, 0.05], [0.0, 1.0]]),
        "eps": st.sampled_from([1e-8, 0, 0.01, 0.05]),
    }
)


@settings(
    max_examples=150,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(config=configs, stream=st.lists(metrics, min_size=1, max_size=60))
def test_any_stream_equals_torchs(backend, config, stream):
    race_through(stream, plateau(**config), backend, RATES[2])


def as_metrics(value):
    """Yield one number in every form in which a loop may pass it."""
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        tensor = torch.tensor(value, dtype=dtype)
        yield from (tensor, tensor.reshape(1), tensor.reshape(1, 1))
        yield tensor.clone().requires_grad_()
        yield tensor.clone().requires_grad_() * 1
        yield torch.stack([tensor, tensor])[1]
    yield from (value, np.float64(value), np.float32(value), np.float16(value), np.array(value))
    yield from (int(value), np.int64(value), torch.tensor(int(value)), bool(value))


@pytest.mark.parametrize("threshold", [1e-4, 0.0, 0.3])
def test_a_metric_in_every_form_counts_as_its_exact_value(backend, threshold):
    case = plateau(patience=0, factor=0.9, threshold=threshold)
    for form in range(len(list(as_metrics(1.0)))):
        race = Race([case], backend)
        for value in (1.0, 0.9999, 0.99985, 0.7, 0.70001, 3.3):
            metric = list(as_metrics(value))[form]
            value = metric.detach() if torch.is_tensor(metric) else metric
            race.feed(metric, theirs=float(value))
            assert_same_decisions(race)


def test_the_metric_is_upcast_from_its_own_dtype(backend):
    for dtype, bad in ((torch.float32, 0), (torch.float64, 1)):
        opt = FusedDecaySGD([parameter()], lr=0.1, schedule=ReduceLROnPlateau(), backend=backend)
        opt.scheduler.step(torch.tensor(1.0, dtype=dtype))
        opt.scheduler.step(torch.tensor(0.9999, dtype=dtype))
        assert opt.scheduler.state_dict()["num_bad_epochs"] == bad


def test_the_metric_may_be_overwritten_after_the_call(backend):
    race = Race([plateau(patience=0, factor=0.5)], backend)
    metric = torch.empty(())
    for value in (1.0, 2.0, 0.5, 0.6, 0.4, 3.0):
        metric.fill_(value)
        race.opt.scheduler.step(metric)
        metric.fill_(torch.nan)
        race.torchs.feed(value)
        race.opt.step()
        race.torchs.opt.step()
        race.check(f"metric {value}")
    assert torch.isnan(metric)


REFUSED = {
    "two": torch.ones(2),
    "matrix": torch.ones(2, 2),
    "none": torch.ones(0),
    "complex": torch.ones((), dtype=torch.complex64),
    "list": [0.5],
    "word": "low",
    "array": np.ones(3),
    "python-complex": 1j,
}


@pytest.mark.parametrize("metric", REFUSED.values(), ids=REFUSED)
def test_what_is_not_one_real_number_is_refused(backend, metric):
    opt = FusedDecaySGD(
        groups_of(RATES[2]), schedule=ReduceLROnPlateau(patience=0), backend=backend
    )
    opt.scheduler.step(1.0)
    before = snapshot(opt)
    with pytest.raises((TypeError, ValueError, RuntimeError)):
        opt.scheduler.step(metric)
    assert_unchanged(opt, before)
    opt.scheduler.step(2.0)
    assert rates(opt) == [0.1 * 0.1, 0.037 * 0.1]


def test_a_metric_without_a_plateau_is_refused(backend):
    opt = FusedDecaySGD([parameter()], lr=0.1, schedule=StepLR(1), backend=backend)
    with pytest.raises(RuntimeError, match=r"scheduler.step\(epoch=0.5\).*metrics for ReduceLROnP"):
        opt.scheduler.step(0.5)
    assert opt.scheduler.last_epoch == 0
    assert rates(opt) == [0.1]


def test_a_plateau_without_a_metric_is_refused(backend):
    for every in (1, None):
        opt = FusedDecaySGD(
            [parameter()],
            lr=0.1,
            schedule=ReduceLROnPlateau(patience=0),
            backend=backend,
            schedule_every=every,
        )
        with pytest.raises((TypeError, ValueError, RuntimeError)):
            opt.scheduler.step()
        assert opt.scheduler.last_epoch == 0


def test_a_step_of_the_optimizer_feeds_no_plateau(backend):
    opt = FusedDecaySGD(
        [parameter()], lr=0.1, schedule=ReduceLROnPlateau(patience=0), backend=backend
    )
    for _ in range(20):
        opt.step()
    assert opt.scheduler.last_epoch == 0
    assert rates(opt) == [0.1]


@pytest.mark.parametrize("every", [1, 2, None])
@pytest.mark.parametrize("cases", WITH_PLATEAU.values(), ids=WITH_PLATEAU)
def test_a_plateau_beside_other_schedules(backend, cases, every):
    race = Race(cases, backend, RATES[2], every)
    for turn in range(120):
        for optimizer in (race.opt, race.torchs):
            optimizer.step()
        if every is None:
            if not all(case.is_plateau for case in cases):
                race.opt.scheduler.step()
            race.torchs.advance()
        if turn % 3 == 2:
            race.opt.scheduler.step(NOISE[turn % len(NOISE)])
            race.torchs.feed(NOISE[turn % len(NOISE)])
        assert rates(race.opt) == rates(race.torchs.opt), turn


def test_rates_written_by_hand(backend):
    race = Race([plateau(patience=0, factor=0.5, min_lr=0.01)], backend, RATES[2])
    for turn in range(60):
        if turn % 5 == 1:
            race.write(0.3 + turn / 100, group=turn % 2)
        race.opt.step()
        race.torchs.step()
        race.feed(1.0 + turn % 4)


def test_a_floor_for_all_extends_to_groups_added_later(backend):
    race = Race([plateau(patience=0, factor=0.1, min_lr=0.05)], backend)
    race.feed(1.0)
    for optimizer in race.both:
        optimizer.add_param_group({"params": [parameter()], "lr": 0.3})
    for metric in (2.0, 3.0, 4.0):
        race.opt.scheduler.step(metric)
        race.torchs.feed(metric)
        assert rates(race.opt) == rates(race.torchs.opt)
    assert rates(race.opt) == [0.05, 0.05]


@pytest.mark.parametrize("count", [1, 2])
def test_a_plateau_per_group(backend, count):
    cases = [plateau(patience=0, factor=0.5), plateau(mode="max", patience=2, factor=0.3)][:count]
    groups = groups_of(RATES[count])
    for group, case in zip(groups, cases, strict=True):
        group["schedule"] = case.ours()
    opt = FusedDecaySGD(groups, lr=0.9, backend=backend)
    alone = [
        Race([case], backend, [lr]).torchs for case, lr in zip(cases, RATES[count], strict=True)
    ]
    for metric in NOISE * 3:
        opt.scheduler.step(metric)
        for torchs in alone:
            torchs.feed(metric)
        assert rates(opt) == [rates(torchs.opt)[0] for torchs in alone]


def test_verbose_is_tolerated_and_changes_no_rate(backend, capsys):
    race = Race([plateau(patience=0, factor=0.5)], backend, RATES[2])
    opt = FusedDecaySGD(
        groups_of(RATES[2]),
        schedule=ReduceLROnPlateau(patience=0, factor=0.5, verbose=True),
        backend=backend,
    )
    for metric in NOISE:
        race.feed(metric)
        capsys.readouterr()
        before = rates(opt)
        opt.scheduler.step(metric)
        assert rates(opt) == rates(race.opt)
        told = capsys.readouterr().out
        assert bool(told) == (before != rates(opt)), "a reduction is told, and only a reduction"


def test_loading_overwrites_the_configuration_and_leaves_the_rate(backend):
    race = Race([plateau(patience=0, factor=0.5)], backend, RATES[2])
    stored = lrfused.ReduceLROnPlateau(patience=3, factor=0.2, threshold=0.5, cooldown=2)
    donor = FusedDecaySGD(groups_of([0.9, 0.8]), schedule=stored, backend=backend)
    for metric in (1.0, 0.9, 0.95):
        donor.scheduler.step(metric)
    state = donor.scheduler.state_dict()
    race.opt.scheduler.load_state_dict(state)
    race.torchs.schedulers[0].load_state_dict(state)
    assert rates(race.opt) == rates(race.torchs.opt) == RATES[2]
    for metric in NOISE * 3:
        race.feed(metric)
        assert_same_decisions(race)
    loaded = race.opt.scheduler.state_dict()
    assert (loaded["patience"], loaded["factor"], loaded["threshold"]) == (3, 0.2, 0.5)
    assert rates(race.opt)[0] < 0.1
