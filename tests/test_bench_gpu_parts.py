"""How benchmarks/gpu.py reads traces, outputs and earlier results, and what it runs."""

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import record_function

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))

from on_gpu import cases, commands, contenders, machine, parts, results, timings
from on_gpu.events import Activity, flush_of, steps_of

ROOT = Path(__file__).resolve().parents[1]

# -- a profiler's events -------------------------------------------------------------------------

FILL = "void at::native::vectorized_elementwise_kernel<4, at::native::FillFunctor<unsigned char>>"
STEP = "lrfused::cuda::step_kernel"
RANGE = "Optimizer.step#FusedDecaySGD.step"


def event(name, us, device=DeviceType.CUDA, kind="kernel", annotation=False, at=100.0):
    return Activity.of(
        FunctionEvent(
            1, name, thread=0, start_us=at, end_us=at + us, device_type=device,
            activity_type=kind, is_user_annotation=annotation,
        )
    )  # fmt: skip


def round_of(*work):
    """List the events of one flush and one step, with what else a trace has."""
    return [
        event(FILL, 90.0),
        event(RANGE, 40.0, kind="gpu_user_annotation", annotation=True),
        event(RANGE, 60.0, device=DeviceType.CPU, kind="user_annotation", annotation=True),
        event("cudaLaunchKernel", 5.0, device=DeviceType.CPU, kind="cuda_runtime"),
        event("Context Sync", 7.0, kind="cuda_sync"),
        *work,
    ]


FLUSHES = [event(FILL, 90.0), event("cudaLaunchKernel", 5.0, DeviceType.CPU, "cuda_runtime")] * 3


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


# -- contenders ----------------------------------------------------------------------------------

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


# -- commands and what they print ----------------------------------------------------------------


def test_the_repository_comes_before_what_pythonpath_names(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/one" + os.pathsep + "/two")
    names = commands.environment(EXTRA="1")
    assert names["PYTHONPATH"].split(os.pathsep) == [str(ROOT), "/one", "/two"]
    assert names["EXTRA"] == "1"
    monkeypatch.delenv("PYTHONPATH")
    assert commands.environment()["PYTHONPATH"] == str(ROOT)


def test_a_command_is_stopped_with_what_it_started_and_its_output_kept():
    program = "import subprocess, sys; print('begun', flush=True); subprocess.run(sys.argv[1:])"
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
    begin = time.monotonic()
    done = commands.call(sys.executable, "-c", program, *sleeper, limit=2.0)
    assert time.monotonic() - begin < 30, "the sleeper holds the other end of the pipe"
    assert not done.ok
    assert re.fullmatch(r"begun\n\nerror: stopped after \d seconds", done.output)


def test_the_compilers_errors_are_found_wherever_they_are():
    command = "[3/11] c++ " + "-I/a/long/path " * 400
    log = [command, "In file included from step.cpp:3:"]
    log += ["csrc/step.h:12:5: error: 'Slot' was not declared", "   12 |     Slot s;", ""]
    log += [command] * 50 + ['csrc/cuda/step.cu(81): error: identifier "x" is undefined']
    log += [command] * 50 + ["ninja: build stopped: subcommand failed.", "Traceback", "  File x"]
    log += ["subprocess.CalledProcessError: Command '['ninja']' returned non-zero exit status 1."]
    told = commands.errors("\n".join(log))
    assert "'Slot' was not declared" in told
    assert "In file included" in told
    assert 'identifier "x" is undefined' in told
    assert "CalledProcessError" in told
    assert len(told) < 4000
    assert max(map(len, told.splitlines())) <= commands.WIDEST
    for line in ("ptxas fatal   : Unresolved extern", "/usr/bin/ld: cannot find -lcudart_static"):
        assert line in commands.errors("\n".join([command, line, *[command] * 99]))
    assert commands.errors("nothing was said") == "nothing was said"


def test_what_pytest_says_of_failures_is_kept(tmp_path):
    file = tmp_path / "test_two.py"
    file.write_text("def test_good():\n    pass\n\ndef test_bad():\n    assert 1 == 2, 'odd'\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rfEs", "--no-header", "-p", "no:cacheprovider", file],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    told = commands.failures(done.stdout)
    assert told.startswith("FAILED ")
    assert "AssertionError: odd" in told
    assert "No module named pytest" in commands.failures("python: No module named pytest")


def test_what_compute_sanitizer_reports_is_kept():
    lines = ["========= COMPUTE-SANITIZER", "noise", "========= Invalid __global__ read of size 4"]
    told = commands.reports("\n".join([*lines, "RuntimeError: CUDA error"]))
    assert told.splitlines() == [lines[0], lines[2], "RuntimeError: CUDA error"]


# -- parts ---------------------------------------------------------------------------------------


@pytest.fixture
def part():
    return parts.Part({}, lambda: None, time.monotonic() + 60, rehearse=False)


@pytest.fixture
def calls(monkeypatch):
    """Record commands instead of running them; each prints what it is told to."""
    made = []

    def call(*command, limit, **more):
        made.append((command, more))
        ok, output = call.answers.pop(0)
        return commands.Done(ok, 1.0, output)

    call.answers = []
    monkeypatch.setattr(parts, "call", call)
    call.made = made
    return call


def test_a_build_is_for_this_gpu_and_must_have_made_the_backend(part, calls):
    calls.answers = [(True, ""), (True, 'a warning\n{"cuda": null, "triton": "no"}\n')]
    assert parts.build(part, (9, 0))
    (command, more), _ = calls.made
    assert command == (sys.executable, "setup.py", "build_ext", "--inplace")
    assert more == {"TORCH_CUDA_ARCH_LIST": "9.0", "LRFUSED_REQUIRE_EXTENSION": "1"}
    calls.answers = [(True, ""), (True, '{"cuda": "lrfused was built without CUDA"}\n')]
    assert not parts.build(part, (9, 0))
    assert part.found["errors"] == "lrfused was built without CUDA"
    calls.answers = [(False, "a.cu(3): error: no\n" + "noise\n" * 9999)]
    assert not parts.build(part, (9, 0))
    assert "a.cu(3): error: no" in part.found["errors"]


def test_the_files_with_tests_for_gpus_are_run_by_name(part, calls):
    listed = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--collect-only", "-qq"]
        + ["-m", "gpu", "tests", f"--ignore={Path(__file__)}"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert set(parts.TESTS) == set(re.findall(r"^(tests/test_\w+\.py): \d+$", listed.stdout, re.M))
    calls.answers = [(True, "SKIPPED [1] test_gpu.py:1: two devices\n9 passed, 1 skipped in 1.0s")]
    assert parts.test(part)
    ((command, _),) = calls.made
    assert command[:5] == (sys.executable, "-m", "pytest", "-m", "gpu")
    assert command[-len(parts.TESTS) :] == parts.TESTS
    assert part.found["skipped"] == ["SKIPPED [1] test_gpu.py:1: two devices"]
    for said in ("9 skipped in 1.0s", "no tests ran in 0.1s"):
        calls.answers = [(True, said)]
        assert not parts.test(part), "nothing has passed"


def test_each_tool_of_the_sanitizer_is_run_without_torchs_cache(part, calls, monkeypatch):
    monkeypatch.setattr(parts, "sanitizer", lambda: "/cuda/compute-sanitizer")
    calls.answers = [(True, "sanitized: {}\n")] * 2 + [(False, "========= hazard\n")]
    assert not parts.sanitize(part)
    assert [command[2] for command, _ in calls.made] == list(parts.TOOLS)
    for command, more in calls.made:
        assert command[0] == "/cuda/compute-sanitizer"
        assert Path(command[-1]).exists()
        assert more == {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    assert part.found["memcheck"]["ok"]
    assert "hazard" in part.found["synccheck"]["errors"]
    monkeypatch.setattr(parts, "sanitizer", lambda: None)
    assert not parts.sanitize(part)


# -- the results file ----------------------------------------------------------------------------

ORIGIN = {"device": "CPU", "sources": "abc", "torch": "2", "date": "today"}


def test_parts_and_cases_are_merged_unless_they_are_of_something_else(tmp_path):
    path = tmp_path / "new" / "gpu.json"
    found = results.Results(path)
    found.begin("test", ORIGIN)["ok"] = True
    found.begin("time", ORIGIN)["cases"] = {"small": {}}
    found.save()
    again = results.Results(path)
    assert again.parts["test"]["ok"]
    assert again.begin("time", {**ORIGIN, "date": "tomorrow"})["cases"] == {"small": {}}
    assert json.loads(path.read_text())["time"]["origin"]["date"] == "tomorrow"
    for key in results.SAME:
        assert "cases" not in results.Results(path).begin("time", {**ORIGIN, key: "other"})
        path.write_text(json.dumps(again.parts))
    assert [p.name for p in path.parent.iterdir()] == ["gpu.json"]


def test_the_digest_is_that_of_the_sources(monkeypatch, tmp_path):
    (tmp_path / "setup.py").write_text("1")
    (tmp_path / "csrc" / "cuda").mkdir(parents=True)
    (tmp_path / "csrc" / "cuda" / "step.cu").write_text("1")
    monkeypatch.setattr(results, "ROOT", tmp_path)
    before = results.sources()
    assert results.sources() == before
    (tmp_path / "csrc" / "cuda" / "step.cu").write_text("2")
    assert results.sources() != before
