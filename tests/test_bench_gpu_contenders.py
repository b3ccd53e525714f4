"""The contenders of benchmarks/gpu.py: rows, launches and times."""

import json
from pathlib import Path

import pytest
import torch
from support.gpu_benchmark import (
    FLUSHES,
    STEP,
    cases,
    contenders,
    event,
    machine,
    results,
    round_of,
    timings,
)

ROOT = Path(__file__).resolve().parents[1]


MACHINE = machine.Machine(torch.device("cpu"))
LIMITS = timings.Limits(rounds=2, seconds=1.0, deadline=float("inf"))
TINY = cases.Case("tiny", [(3, 5), (7,)], torch.float32)


def test_cases_that_move_few_bytes_come_first():
    listed = cases.cases()
    assert [case.bytes for case in listed] == sorted(case.bytes for case in listed)
    assert len({case.name for case in listed}) == len(listed)


@pytest.mark.parametrize(
    ("beside", "count", "graph", "launches"),
    [
        ("", 2, False, 1),
        ("masters", 2, False, 1),
        ("clipped", 2, False, 2),
        ("", 10_000, False, 1),
        ("", 161, True, 1),
        ("clipped", 161, True, 2),
        ("", 10_000, True, None),
    ],
)
def test_one_launch_is_promised_and_one_more_to_clip(beside, count, graph, launches):
    case = cases.Case("case", [(3,)] * count, torch.float32, beside)
    assert contenders.ours("lrfused", "cuda", case, MACHINE, graph=graph).launches == launches
    assert contenders.ours("lrfused, Triton", "triton", case, MACHINE).launches is None


def test_a_for_loop_over_thousands_of_tensors_is_not_profiled():
    for case in cases.cases():
        loop, foreach = (
            contenders.torchs("torch", case, MACHINE, foreach=foreach, fused=False)
            for foreach in (False, True)
        )
        assert loop.profiled == (len(case.shapes) < 10_000), case.name
        assert foreach.profiled


def raced(*entrants):
    rows, saved = {}, []
    race = timings.Race(TINY, entrants[0], MACHINE, LIMITS, copied=1.0)
    kept = race.run(list(entrants), rows, lambda: saved.append(json.dumps(rows)))
    assert len(saved) > len(entrants)
    return kept, rows


def contender(name, lr=0.1, exact=True, step=None):
    def make():
        own = contenders.draw(TINY, MACHINE)
        optimizer = torch.optim.SGD(own, lr=lr, momentum=0.9, foreach=False)
        return contenders.Made(own, optimizer, step or optimizer.step)

    return contenders.Contender(name, make, exact=exact)


def test_what_fails_is_a_row_and_the_others_go_on():
    def fail():
        raise RuntimeError("no kernel image is available")

    kept, rows = raced(
        contender("torch"), contender("torch, new", step=fail), contender("lrfused, other")
    )
    assert kept
    assert rows["torch, new"]["failed"] == "RuntimeError: no kernel image is available"
    assert "fail()" in rows["torch, new"]["at"] or "in fail" in rows["torch, new"]["at"]
    assert rows["lrfused, other"]["differing"] == 0
    assert rows["lrfused, other"]["device us"] > 0
    kept, _ = raced(contender("torch"), contender("lrfused", step=fail))
    assert not kept


def test_where_the_device_is_lost_the_rows_so_far_are_saved(monkeypatch):
    def lost():
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nadvice")

    rows, saved = {}, []
    device = machine.Machine(torch.device("cpu"))
    monkeypatch.setattr(device, "clear", lost)
    broken = contender("lrfused", step=lost)
    race = timings.Race(TINY, contender("torch"), device, LIMITS, copied=1.0)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        race.run([broken, contender("torch foreach")], rows, lambda: saved.append(dict(rows)))
    assert list(saved[-1]) == ["lrfused"]
    first_line = "RuntimeError: CUDA error: an illegal memory access was encountered"
    assert saved[-1]["lrfused"]["failed"] == first_line


def test_other_bits_are_counted_and_not_timed_where_they_were_promised():
    kept, rows = raced(
        contender("torch"), contender("torch, other", lr=0.2, exact=False),
        contender("lrfused", lr=0.1000001),
    )  # fmt: skip
    assert not kept
    assert rows["torch, other"]["differing"] == 15 + 7
    assert rows["torch, other"]["device us"] > 0
    assert 0 < rows["lrfused"]["differing"] <= 15 + 7
    assert "device us" not in rows["lrfused"]
    assert "not the oracle's" in results.table({"copy GB/s": 1.0, "cases": {"tiny": rows}})


class Traced(machine.Machine):
    """The CPU with a profiler that has recorded so many launches in three steps."""

    def __init__(self, launches):
        super().__init__(torch.device("cpu"))
        self._launches = launches

    def work(self, call, rounds):
        if self._launches is None:
            raise ValueError("none of 3 traces is complete")
        return [event(STEP, 40.0)] * self._launches, 3


@pytest.mark.parametrize(("launches", "broken"), [(3, False), (4, True), (6, True), (None, False)])
def test_launches_are_counted_and_compared_with_the_promise(launches, broken):
    ours = contenders.ours("lrfused", "reference", TINY, MACHINE)
    promising = contenders.Contender(ours.name, ours.make, launches=1)
    race = timings.Race(TINY, promising, Traced(launches), LIMITS, copied=1.0)
    row = race._profiled(promising, promising.make())
    assert ("broken" in row) == broken
    if launches is None:
        assert row == {"not profiled": "ValueError: none of 3 traces is complete"}
    else:
        assert row["launches"] == launches / 3
        assert row["kernels us"] == pytest.approx(40.0 * launches / 3)  # a mean of floats


@pytest.fixture
def gpu(monkeypatch):
    """Make a machine whose device is the CPU, with events and a clock, and note what it does."""
    done = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            done.append("event")

        def synchronize(self):
            done.append("wait")

        def elapsed_time(self, end):
            return 2.0  # ms

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: done.append(cycles))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: done.append("wait"))
    made = machine.Machine(torch.device("cpu"))
    monkeypatch.setattr(made, "gpu", True)
    monkeypatch.setattr(made, "flush", lambda: done.append("flush"))
    monkeypatch.setattr(made, "_cycles_per_us", made._clock())
    done.clear()
    return made, done


def test_the_device_is_kept_busy_and_flushed_before_the_step_that_is_timed(gpu):
    made, done = gpu
    assert made._cycles_per_us == 5000

    def step():
        done.append("step")

    assert made.device_us(step, 1, 1.0, host_us=200.0) == [2000.0]
    assert done == ["wait", 5000 * 400, "flush", "event", "step", "event", "wait"]
    done.clear()
    made.device_us(step, 1, 1.0, host_us=1e9)
    assert done[1] == 5000 * machine.LONGEST_HOLD


def test_the_hosts_time_is_that_of_the_call_on_an_idle_device(gpu):
    made, done = gpu
    assert len(made.host_us(lambda: done.append("step"), 2, 1.0)) == 2
    assert done == ["wait", "step", "wait", "step", "wait"]


def test_an_incomplete_trace_is_taken_again_and_the_third_time_given_up(gpu, monkeypatch):
    made, _ = gpu
    complete = round_of(event(STEP, 40.0))
    traces = [[], FLUSHES, complete, complete * 2]
    monkeypatch.setattr(made, "_trace", lambda call, rounds: traces.pop(0))
    work, steps = made.work(lambda: None, 2)
    assert [a.name for a in work] == [STEP, STEP]
    assert steps == 2
    traces += [complete] * 3
    with pytest.raises(ValueError, match="none of 3 traces is complete: 2 flushes"):
        made.work(lambda: None, 2)


def test_samples_are_as_many_as_asked_for_or_as_there_is_time_for():
    assert len(machine.repeated(lambda: 1.0, 50, seconds=60.0)) == 50
    assert len(machine.repeated(lambda: 1.0, 50, seconds=0.0)) == machine.LEAST
