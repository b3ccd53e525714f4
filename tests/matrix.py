"""Build, verify and test lrfused with every promised torch, and write the table of the docs.

    python tests/matrix.py                           # all rows, one environment after another
    python tests/matrix.py --only 2.9.1 --only newest  # these rows; or compilers

Each environment is made in a temporary folder, holds gigabytes where that torch comes with CUDA,
and is removed afterwards. Interpreters are those on PATH, or pyenv's.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "versions.md"
RESULTS = ROOT / "benchmarks" / "results" / "versions.json"
BEGIN, END = "<!-- matrix -->\n", "<!-- /matrix -->\n"

# The oldest torch with the oldest Python, the newest with the newest, and all between.
ENVIRONMENTS = (
    ("3.10", "2.9.1"), ("3.12", "2.10.0"), ("3.12", "2.11.0"), ("3.13", "2.12.1"), ("3.13", ""),
)  # fmt: skip
NAMES = {torch or "newest": (python, torch) for python, torch in ENVIRONMENTS}
NEEDED = (
    "setuptools>=77", "ninja", "pytest>=8", "pytest-xdist", "hypothesis", "numpy",
    "rich", "filelock", "matplotlib",
)  # fmt: skip
# Tests of the repository, which no torch changes.
APART = (
    "test_bench", "test_bench_gpu", "test_bench_gpu_contenders", "test_bench_gpu_events",
    "test_bench_gpu_parts", "test_bench_traffic", "test_compilers", "test_cuda_sources",
    "test_docs", "test_examples", "test_matrix", "test_packaging", "test_ptx", "test_readme",
    "test_site",
)  # fmt: skip
NVCC = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")


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


def test(python: Path, clone: Path) -> str:
    """Run the tests that concern torch; return their counts."""
    apart = [f"--ignore=tests/{name}.py" for name in APART]
    printed = call(
        python, "-m", "pytest", "-n", "auto", "--maxprocesses", "8", "--tb=short",
        "-p", "no:cacheprovider", *apart, folder=clone, allowed=(0, 1), PYTHONPATH=str(clone),
    )  # fmt: skip
    return checked(printed)


def checked(printed: str) -> str:
    """Return pytest's last line, as "7 passed, 1 skipped". Raises Failure unless all passed."""
    counts = ([""] + re.findall(r"^[= ]*(\d+ .*?) in [\d.]+s", printed, re.MULTILINE))[-1]
    if not re.fullmatch(r"\d+ passed(, \d+ (skipped|deselected|warnings?))*", counts):
        failed = re.findall(r"^(?:FAILED|ERROR) .*", printed, re.MULTILINE)
        print("\n".join(failed) or printed[-4000:], flush=True)
        raise Failure(f"the tests, {counts or 'which did not end'}")
    return counts


def run(python: str, torch: str) -> dict[str, str]:
    """Make one row."""
    row = {"Python": python, "torch": torch or "newest", "CUDA kernels": "not built"}
    with environment(python, torch) as (own, clone):
        told = call(own, "-c", "import torch; print(torch.__version__, torch.version.cuda)")
        row["torch"], cuda = told.split()[-2:]
        row["Python"] = call(own, "--version").split()[1]
        row["commit"] = call("git", "rev-parse", "--short", "HEAD", folder=clone).strip()
        if cuda != "None" and NVCC:
            build(own, clone, kernels=True)
            verify(own, clone)
            row["CUDA kernels"] = "built"
        build(own, clone, kernels=False)
        verify(own, clone)
        row["verify"] = "all equal, bit for bit"
        row["tests"] = test(own, clone)
    return row


def run_compilers() -> dict[str, str]:
    """Run the compilers' tests in this interpreter, where none may be skipped."""
    printed = call(
        sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "tests/test_compilers.py",
        allowed=(0, 1),
    )  # fmt: skip
    counts = checked(printed)
    if "skipped" in counts:
        raise Failure(f"the compilers' tests, {counts}: which compilers are missing?")
    return {"compilers": ", ".join(sorted(set(re.findall(r"vectors\[(.*?)\]", printed))))}


def write(name: str, row: dict[str, str]) -> None:
    """Save a row beside the others, and write their table into the page."""
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    found[name] = row
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    before, rest = PAGE.read_text().split(BEGIN)
    _, after = rest.split(END)
    PAGE.write_text(before + BEGIN + table(found) + END + after)


def table(found: dict[str, dict[str, str]]) -> str:
    """Lay out the rows."""
    columns = ("Python", "torch", "CUDA kernels", "verify", "tests", "date", "commit")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    rows = [found[name] for name in NAMES if name in found]
    lines += [f"| {' | '.join(row[column] for column in columns)} |" for row in rows]
    if "compilers" in found:
        row = found["compilers"]
        lines += ["", f"With the same bits, on {row['date']}: {row['compilers']}."]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Read the command line and make the rows; each is written when it is green."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    choices = [*NAMES, "compilers"]
    parser.add_argument("--only", action="append", choices=choices, help="may be repeated")
    todo: list[str] = parser.parse_args().only or choices
    failures = 0
    for name in todo:
        begin = time.monotonic()
        try:
            row = run_compilers() if name == "compilers" else run(*NAMES[name])
        except Failure as failure:
            failures += 1
            print(f"{name}: failed: {failure}", flush=True)
            continue
        row["date"] = str(datetime.date.today())
        row.setdefault("commit", call("git", "rev-parse", "--short", "HEAD").strip())
        write(name, row)
        minutes = (time.monotonic() - begin) / 60
        print(f"{name}: {', '.join(row.values())}; {minutes:.0f} minutes", flush=True)
    return failures


if __name__ == "__main__":
    sys.exit(main())
