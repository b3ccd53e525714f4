"""Build, verify and test lrfused with every promised torch, and write the table of the docs.

    python tests/matrix.py               # all rows, one environment after another
    python tests/matrix.py --only 2.9.1  # the rows whose torch begins so

Each environment is made in a temporary folder, holds gigabytes where that torch comes with CUDA,
and is removed afterwards. Interpreters are those on PATH, or pyenv's.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "versions.md"
BEGIN, END = "<!-- matrix -->\n", "<!-- /matrix -->\n"

# The oldest torch with the oldest Python, the newest with the newest, and all between.
ENVIRONMENTS = (
    ("3.10", "2.9.1"), ("3.12", "2.10.0"), ("3.12", "2.11.0"), ("3.13", "2.12.1"), ("3.13", ""),
)  # fmt: skip
NEEDED = (
    "setuptools>=77", "ninja", "pybind11", "pytest>=8", "pytest-xdist", "hypothesis", "numpy",
    "rich", "filelock", "matplotlib",
)  # fmt: skip
# What concerns the repository, not torch.
APART = (
    "test_bench", "test_bench_gpu", "test_bench_gpu_parts", "test_bench_traffic", "test_compilers",
    "test_cuda_sources", "test_docs", "test_examples", "test_packaging", "test_ptx", "test_readme",
)  # fmt: skip
NVCC = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")


@dataclass
class Row:
    """Hold what happened with one Python and one torch."""

    python: str
    torch: str
    failed: list[str] = field(default_factory=list)
    kernels: str = "not built"
    tests: str = ""
    minutes: float = 0.0

    def __str__(self) -> str:
        state = "; ".join(self.failed) or "all equal, bit for bit"
        cells = self.python, self.torch, self.kernels, state, self.tests, f"{self.minutes:.0f}"
        return f"| {' | '.join(cells)} |"


class Failure(Exception):
    """A command of a row that failed."""


def interpreter(version: str) -> str:
    """Return the path of this version's interpreter."""
    on_path = shutil.which(f"python{version}")
    if on_path and not subprocess.run([on_path, "-c", ""], capture_output=True).returncode:
        return on_path
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = sorted(root.glob(f"versions/{version}.*/bin/python"))
    if not found:
        raise Failure(f"no Python {version}")
    return str(found[-1])


@contextlib.contextmanager
def environment(python: str, torch: str) -> Iterator[tuple[Path, Path]]:
    """Make an environment and a clone of this commit; give the interpreter and the clone."""
    with tempfile.TemporaryDirectory(prefix="lrfused-matrix-") as name:
        folder = Path(name)
        call(interpreter(python), "-m", "venv", folder / "venv")
        call("git", "clone", "--quiet", ROOT, folder / "clone")
        own = folder / "venv" / "bin" / "python"
        install = (own, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        call(*install, f"torch=={torch}" if torch else "torch")
        call(*install, *NEEDED)
        yield own, folder / "clone"


def call(
    *command: object, folder: Path = ROOT, allowed: tuple[int, ...] = (0,), **more: str
) -> str:
    """Run a command; return what it printed. Raises Failure with its end."""
    inherited = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [*map(str, command)], cwd=folder, env={**inherited, **more}, text=True, errors="replace",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    if done.returncode not in allowed:
        print(done.stdout[-8000:], flush=True)
        raise Failure(" ".join(map(str, command[1:4])))
    return done.stdout


def build(python: Path, clone: Path, kernels: bool) -> None:
    """Build in place, with the CUDA kernels or with their emulation."""
    call(
        python, "setup.py", "--quiet", "build_ext", "--inplace", "--force", folder=clone,
        LRFUSED_REQUIRE_EXTENSION="1", LRFUSED_CUDA=str(int(kernels)),
        TORCH_CUDA_ARCH_LIST="9.0",
    )  # fmt: skip


def verify(python: Path, clone: Path) -> None:
    """Compare the backends that are there with torch."""
    printed = call(python, "-m", "lrfused", "verify", "--quick", folder=clone)
    if "all equal, bit for bit" not in printed:
        raise Failure("verify --quick")


def test(python: Path, clone: Path, row: Row) -> None:
    """Run the tests that concern torch."""
    apart = [f"--ignore=tests/{name}.py" for name in APART]
    printed = call(
        python, "-m", "pytest", "-q", "-n", "auto", "--maxprocesses", "8", "--tb=short",
        "-p", "no:cacheprovider", *apart, folder=clone, allowed=(0, 1), PYTHONPATH=str(clone),
    )  # fmt: skip
    (*_, counts) = re.findall(r"^.*\d+ passed.*$", printed, re.MULTILINE) or [""]
    row.tests = re.sub(r"=+| in .*", "", counts).strip()
    if not row.tests or "failed" in row.tests or "error" in row.tests:
        print(printed[-12000:], flush=True)
        raise Failure("the tests")


def run(python: str, torch: str) -> Row:
    """Make one row."""
    row, begin = Row(python, torch or "newest"), time.monotonic()
    try:
        with environment(python, torch) as (own, clone):
            told = call(own, "-c", "import torch; print(torch.__version__, torch.version.cuda)")
            row.torch, cuda = told.split()[-2:]
            row.python = call(own, "--version").split()[1]
            if cuda != "None" and NVCC:
                build(own, clone, kernels=True)
                row.kernels = "built"
                verify(own, clone)
            build(own, clone, kernels=False)
            verify(own, clone)
            test(own, clone, row)
    except Failure as failure:
        row.failed.append(f"failed: {failure}")
    row.minutes = (time.monotonic() - begin) / 60
    print(row, flush=True)
    return row


def processors() -> list[str]:
    """Run the compilers' tests in this interpreter; return a line for each that ran."""
    printed = call(
        sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "tests/test_compilers.py",
        "-k", "agree or clang_builds", allowed=(0, 1),
    )  # fmt: skip
    print(printed[-4000:], flush=True)
    return re.findall(r"::(test_\S+ (?:PASSED|FAILED|SKIPPED))", printed)


def table(rows: list[Row]) -> str:
    """Lay out the rows."""
    commit = call("git", "describe", "--always", "--dirty").strip()
    date = datetime.date.today().isoformat()
    lines = [
        f"Commit {commit}, {date}, {platform.system()} on {platform.machine()}:",
        "",
        "| Python | torch | CUDA kernels | `verify --quick` | tests | minutes |",
        "|---|---|---|---|---|---:|",
    ]
    return "\n".join([*lines, *map(str, rows)]) + "\n"


def main() -> int:
    """Read the command line, make the rows, and write all of them to the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="the beginning of a torch's version")
    only: str = parser.parse_args().only
    rows = [run(*each) for each in ENVIRONMENTS if each[1].startswith(only)]
    ran = processors()
    if not only:
        before, rest = PAGE.read_text().split(BEGIN)
        _, after = rest.split(END)
        PAGE.write_text(before + BEGIN + table(rows) + END + after)
    failed = [str(row) for row in rows if row.failed] + [each for each in ran if "FAILED" in each]
    print("\n".join(failed) or "all rows are green")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
