"""A test that uses `backend` runs on all of them, unless a marker names kinds and a reason."""

import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from support import kinds

TESTS = Path(__file__).resolve().parent
ALL = [name for names in kinds.KINDS.values() for name in names]
HOST = [*kinds.KINDS["host"]]
FILES = {
    "test_unmarked.py": "def test_it(backend): ...",
    "test_marked.py": """
import pytest
pytestmark = pytest.mark.backends("host", reason="why")
def test_narrow(backend): ...
@pytest.mark.backends("host", "gpu", reason="why")
def test_nearer(backend): ...
def test_of_no_backend(): ...
@pytest.mark.parametrize("backend", ["eager"])
def test_of_another_notion(backend): ...
""",
}


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    """Collect new files as pytest does with those in the folder of tests: test to parameters."""
    folder = tmp_path_factory.mktemp("new")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "conftest"]
        + ["-c", str(TESTS.parent / "pyproject.toml"), "--rootdir", str(folder)]
        + ["--collect-only", str(folder)],
        cwd=TESTS, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = defaultdict(list)
    for line in done.stdout.splitlines():
        if "::" in line:
            test, _, parameter = line.partition("::")[2].partition("[")
            found[test].append(parameter.rstrip("]"))
    return found


def test_without_a_marker_a_new_file_runs_on_every_backend(collected):
    assert collected["test_it"] == ALL


def test_a_marker_narrows_a_file(collected):
    assert collected["test_narrow"] == HOST


def test_the_nearest_marker_counts(collected):
    assert collected["test_nearer"] == [*HOST, *kinds.KINDS["gpu"]]


def test_other_tests_are_left_alone(collected):
    assert collected["test_of_no_backend"] == [""]
    assert collected["test_of_another_notion"] == ["eager"]


@pytest.mark.parametrize(
    ("marker", "told"),
    [
        (pytest.mark.backends("host"), "must have a reason"),
        (pytest.mark.backends("host", reason=""), "must have a reason"),
        (pytest.mark.backends("host", reason="why", also="what"), "must have a reason"),
        (pytest.mark.backends("cpu", reason="why"), "takes kinds of"),
        (pytest.mark.backends(reason="why"), "takes kinds of"),
    ],
)
def test_a_wrong_marker_is_refused(marker, told):
    with pytest.raises(pytest.UsageError, match=told):
        kinds.named(marker.mark)
