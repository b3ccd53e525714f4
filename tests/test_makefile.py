"""Each command of the Makefile sets up what it needs in a fresh clone, and nothing else."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NEEDS = {
    "demo": {"demo"},
    "check": {"demo", "test"},
    "fuzz": {"demo", "test"},
    "sanitize": {"demo", "test"},
    "lint": {"demo", "lint"},
    "format": {"demo", "lint"},
    "docs": {"demo", "docs"},
    "test": {"demo", "test", "docs"},  # a test builds the documentation and opens it
    "bench": {"demo", "bench"},
}


@pytest.fixture
def fresh(tmp_path):
    """Copy what the Makefile depends on into an empty folder."""
    if shutil.which("make") is None:
        pytest.skip("no make")
    for name in ("Makefile", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, tmp_path)
    for folder in ("csrc", "lrfused/extension"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    return tmp_path


def recipe(folder, target):
    """Return what `make` would run, running nothing."""
    command = ["make", "--dry-run", target]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("target", NEEDS)
def test_a_command_installs_its_own_extras_alone(target, fresh):
    lines = recipe(fresh, target).splitlines()
    installed = [line for line in lines if " install " in line and "pip " in line]
    assert {name for line in installed for name in re.findall(r"\[(\w+)\]", line)} == NEEDS[target]
    assert sum("--editable" in line for line in installed) == 1  # it is compiled once


@pytest.mark.parametrize("target", NEEDS)
def test_torch_and_the_build_come_before_the_command(target, fresh):
    printed = recipe(fresh, target)
    order = [printed.index(part) for part in (" -m venv ", '"setuptools>=77"', "--editable")]
    assert order == sorted(order)
    assert printed.rstrip().splitlines()[-1].find("--editable") == -1


def test_the_demo_ends_with_what_to_do_next(fresh):
    last = recipe(fresh, "demo").split("lrfused demo")[1]
    assert "lrfused run --check 20" in last
    assert "lrfused verify --quick" in last
    (page,) = re.findall(r"docs/\w+\.md", last)
    assert (ROOT / page).exists()
