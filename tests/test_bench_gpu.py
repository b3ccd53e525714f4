"""benchmarks/gpu.py rehearsed on the CPU, where little of what it would like is there."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.tape import not_emulated

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.skipif(
    not_emulated("cuda") is not None, reason=f"cuda: {not_emulated('cuda')}"
)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """Copy what the command needs: without .git, and without what was built elsewhere."""
    to = tmp_path_factory.mktemp("copy")
    for name in ("benchmarks", "csrc", "lrfused", "tests"):
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, to)
    return to


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory):
    """Make an environment with no programs, no rich, and another package named benchmarks."""
    packages = tmp_path_factory.mktemp("packages")
    for name in ("benchmarks", "rich"):
        (packages / name).mkdir()
        (packages / name / "__init__.py").write_text("raise ImportError('not this one')\n")
    empty = str(tmp_path_factory.mktemp("programs"))
    return {**os.environ, "PATH": empty, "PYTHONPATH": str(packages), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def start(copy, surroundings):
    """Start a rehearsal; end it with the test."""
    started = []

    def begin(*arguments):
        command = [sys.executable, "benchmarks/gpu.py", "--rehearse", "--rounds", "2", *arguments]
        process = subprocess.Popen(
            command, cwd=copy, env=surroundings, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def ended(process):
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stdout[-3000:] + stderr[-3000:]
    return stdout.splitlines()


def test_a_rehearsal_of_all_parts_validates_and_ends_with_a_table(start, tmp_path):
    path = tmp_path / "made" / "gpu.json"
    lines = ended(start("--json", path))
    words = ("ResNet-50, float32", "10,000 of 64, bfloat16", "of copy", "torch fused")
    for word in (*words, "ViT-L/16, float32, clipped", "ResNet-50, bfloat16, masters"):
        assert any(word in line for line in lines), word
    found = json.loads(path.read_text())
    assert list(found) == ["build", "test", "sanitize", "time"]
    for name, part in found.items():
        assert part["ok"], name
        assert part["finished"], name
        assert part["origin"]["commit"] is None, "there is no git"
        assert len(part["origin"]["sources"]) == 16
    assert found["build"]["backends"]["cuda"] is None
    assert "tests collected" in found["test"]["said"]
    for case, rows in found["time"]["cases"].items():
        assert rows["lrfused"]["device us"] > 0, case
        if "float32" in case or "clipped" in case or "masters" in case:
            assert rows["lrfused"]["differing"] == 0, case
        assert all("failed" not in row and "broken" not in row for row in rows.values()), case


def test_what_was_measured_survives_a_kill_and_later_calls_add_to_it(start, tmp_path):
    path = tmp_path / "gpu.json"
    first = start("--only", "time", "--json", path)
    until = time.monotonic() + 120
    while not (path.exists() and '"10,000 of 64, float32"' in path.read_text()):
        assert first.poll() is None, first.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)
    first.kill()
    first.communicate()
    killed = json.loads(path.read_text())
    assert not killed["time"]["finished"]
    measured = killed["time"]["cases"]["10,000 of 64, bfloat16"]
    assert measured["lrfused"]["samples"]["host"]

    case = "one of 100 M, float32, clipped"
    ended(start("--only", "build", "--only", "time", "--case", case, "--json", path))
    merged = json.loads(path.read_text())
    assert merged["build"]["ok"]
    assert merged["time"]["finished"]
    assert merged["time"]["cases"]["10,000 of 64, bfloat16"] == measured
    assert case in merged["time"]["cases"]


def test_no_contender_begins_when_there_is_no_time(start, tmp_path):
    path = tmp_path / "gpu.json"
    ended(start("--only", "time", "--minutes", "0", "--json", path))
    cases = json.loads(path.read_text())["time"]["cases"]
    rows = [row for rows in cases.values() for row in rows.values()]
    assert rows
    assert all(row == {"left out": "there was no time"} for row in rows)
