"""The fast tier has tests for every package, and `make check` runs them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import tier

ROOT = Path(__file__).resolve().parent.parent
SELECTION = "not triton"


def test_it_knows_every_package():
    packages = {path.parent.name for path in (ROOT / "lrfused").glob("*/__init__.py")}
    assert set(tier.PACKAGES) == packages | {"lrfused"}


@pytest.fixture(scope="module")
def selected():
    """Collect the tier; return the number of tests by file."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--collect-only", "-qq"]
        + ["-k", SELECTION, *tier.files()],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    return dict(re.findall(r"^tests/(test_\w+)\.py: ([1-9]\d*)$", done.stdout, re.MULTILINE))


@pytest.mark.parametrize("package", tier.PACKAGES)
def test_every_package_has_tests_in_it(selected, package):
    assert set(tier.PACKAGES[package]) <= set(selected)


def test_make_check_runs_it():
    makefile = (ROOT / "Makefile").read_text()
    assert f'-k "{SELECTION}" $$($(PY) tests/support/tier.py)' in makefile
