"""Commands with a time limit, and excerpts of their output."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass

from .results import ROOT

MOST = 8_000  # characters of an excerpt
WIDEST = 300  # characters of one of its lines: a compiler's command has thousands

# gcc's and nvcc's "error:", the linker's, ptxas' and nvcc's "fatal   :", ninja's and Python's.
_ERROR = re.compile(
    r"\berror\b[^:\n]{0,20}:|\bfatal\b[^:\n]{0,20}:|undefined reference|cannot find -l"
    r"|^FAILED: |^[\w.]*(Error|Exception): ",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Done:
    """The outcome of a command."""

    ok: bool
    seconds: float
    output: str  # stdout and stderr together


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a command: the repository comes first on PYTHONPATH."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **more}


def call(*command: str, limit: float, **more: str) -> Done:
    """Run a command in the repository, for at most `limit` seconds; `more` is its environment."""
    begin = time.monotonic()
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment(**more), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
    )  # fmt: skip
    note = ""
    try:
        output, _ = process.communicate(timeout=max(1.0, limit))
    except subprocess.TimeoutExpired:
        _end(process)
        output, _ = process.communicate()
        note = f"\nerror: stopped after {time.monotonic() - begin:.0f} seconds"
    finally:
        _end(process)
    ok = process.returncode == 0 and not note
    return Done(ok, time.monotonic() - begin, output + note)


def _end(process: subprocess.Popen[str]) -> None:
    """End a command and those that it started, if it still runs."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):  # it may have ended meanwhile
            os.killpg(process.pid, signal.SIGKILL)


def errors(output: str) -> str:
    """Return a build's errors, each with the lines around it, from the first on.

    Without any, return the end of the output.
    """
    lines = [line[:WIDEST] for line in output.splitlines()]
    picked = {
        near
        for i, line in enumerate(lines)
        if _ERROR.search(line)
        for near in range(max(0, i - 1), min(len(lines), i + 4))
    }
    if not picked:
        return output[-MOST:]
    kept: list[str] = []
    for i in sorted(picked):
        if kept and i - 1 not in picked:
            kept.append("...")
        kept.append(lines[i])
    return _shortened("\n".join(kept))


def failures(output: str) -> str:
    """Return pytest's account of what failed, from the first on, and its summary."""
    start = re.search(r"^=+ (ERRORS|FAILURES) =+$", output, re.MULTILINE)
    if start is None:
        return output[-MOST:]
    summary = [line[:WIDEST] for line in matching(output, "FAILED ", "ERROR ")]
    return _shortened("\n".join(summary)) + "\n" + _shortened(output[start.start() :])


def reports(output: str) -> str:
    """Return the reports of compute-sanitizer, from the first on, and Python's last line."""
    found = matching(output, "=========")
    last = output.strip().splitlines()[-1:]
    return _shortened("\n".join(found)) + "\n" + "\n".join(last)


def matching(output: str, *beginnings: str) -> list[str]:
    """Return the lines that begin with one of these."""
    return [line for line in output.splitlines() if line.startswith(beginnings)]


def _shortened(text: str) -> str:
    return text if len(text) <= MOST else text[:MOST] + "\n... and more"
