"""A profiler's events, as benchmarks/gpu.py reads them."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from support.gpu_benchmark import (
    FILL,
    FLUSHES,
    RANGE,
    STEP,
    Activity,
    event,
    flush_of,
    round_of,
    steps_of,
)
from torch.autograd import DeviceType
from torch.profiler import record_function

ROOT = Path(__file__).resolve().parents[1]


def test_neither_flushes_nor_annotations_are_a_steps_work():
    flush = flush_of(FLUSHES, 3)
    assert flush == Counter({FILL: 1})
    copy = event("Memcpy HtoD (Pinned -> Device)", 2.0, kind="gpu_memcpy")
    zero = event("Memset (Device)", 1.0, kind="gpu_memset")
    work = steps_of(round_of(event(STEP, 40.0), copy, zero) * 4, flush, 4)
    assert Counter(a.name for a in work) == {STEP: 4, copy.name: 4, zero.name: 4}
    assert sum(a.us for a in work) == pytest.approx(4 * 43.0)  # a sum of floats


def test_a_torch_that_does_not_tell_the_kinds_of_events_is_read_too():
    events = [
        event(FILL, 90.0, kind=None),
        event(RANGE, 40.0, kind=None, annotation=True),
        event(STEP, 40.0, kind=None),
        event("aten::add_", 9.0, DeviceType.CPU, kind=None),
    ]
    assert [a.name for a in steps_of(events * 2, Counter({FILL: 1}), 2)] == [STEP, STEP]


@pytest.mark.parametrize(
    ("recorded", "rounds"), [([], 3), (FLUSHES[:4], 3), (FLUSHES[1:2] * 3, 3)], ids=str
)
def test_flushes_that_were_not_all_recorded_are_refused(recorded, rounds):
    with pytest.raises(ValueError, match="3 flushes were recorded as"):
        flush_of(recorded, rounds)


def test_a_trace_that_lost_a_flush_or_has_one_too_many_is_refused():
    flush = Counter({FILL: 1})
    for extra in ([], [event(FILL, 3.0)] * 2):
        with pytest.raises(ValueError, match="2 flushes were recorded as"):
            steps_of([*round_of(event(STEP, 40.0)), *extra], flush, 2)


def test_events_of_this_torchs_profiler_are_read():
    cpu = [torch.profiler.ProfilerActivity.CPU]
    profile = torch.profiler.profile(activities=cpu, acc_events=True)
    with profile as found, record_function("a range"):
        torch.ones(3).zero_()
    activities = [Activity.of(event) for event in found.events()]
    assert {"a range", "aten::zero_"} <= {a.name for a in activities}
    assert [a.name for a in activities if a.annotation] == ["a range"]
    assert not any(a.is_work for a in activities)
