"""The commands of benchmarks/gpu.py, their outputs, and the results file."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.gpu_benchmark import (
    commands,
    parts,
    results,
)

ROOT = Path(__file__).resolve().parents[1]


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
