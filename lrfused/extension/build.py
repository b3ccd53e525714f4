"""Find the extension for this torch in the cache, or compile it there: once, whoever asks."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from . import build_record, cache

VARIABLE = "LRFUSED_BUILD"
_SECONDS = 60  # of one core, without CUDA kernels
# They would change how the child ends a failed build, what enters it, and which warnings end it.
_NOT_INHERITED = ("LRFUSED_REQUIRE_EXTENSION", "LRFUSED_RUN", "PYTHONWARNINGS")
# setuptools brings a distutils of its own, unless torch has imported Python's before.
_CHILD = f"import setuptools; from {__package__}.child import main; main()"

Tell = Callable[[int, int], None]


class NotBuilt(Exception):
    """Why there is no extension for this torch, in words."""


@functools.cache
def once() -> Path | NotBuilt:
    """Return `obtain()`'s extension, or what it raised; one process asks once."""
    try:
        return obtain()
    except NotBuilt as why:
        return why


def obtain(*, ahead: bool = False, again: bool = False, tell: Tell | None = None) -> Path:
    """Return the path of the extension for this torch, compiled now if it is not in the cache.

    ahead: LRFUSED_BUILD=never does not matter. again: compile it even if it is there, or failed.
    tell: called with the numbers of files compiled and of all, now and then.

    Raises NotBuilt, and ValueError for another value of LRFUSED_BUILD.
    """
    setting = os.environ.get(VARIABLE, "auto")
    if setting not in ("auto", "never"):
        raise ValueError(f"{VARIABLE} must be 'auto' or 'never', got {setting!r}")
    if sys.platform == "win32":
        raise NotBuilt("lrfused's extension is not compiled on Windows")
    try:
        return _obtain(ahead or setting == "auto", again, tell)
    except OSError as error:
        raise NotBuilt(f"lrfused's extension cannot be compiled: {error}") from error


def _obtain(allowed: bool, again: bool, tell: Tell | None) -> Path:
    key = cache.key()
    if not allowed:
        key = replace(key, compilers=None)
    record = cache.look_up(key)
    if record is not None and not again:
        return _extension(record)
    if not allowed:
        raise NotBuilt(
            f"lrfused's extension is not compiled for torch {torch.__version__}, and "
            f"{VARIABLE}=never; `lrfused build` compiles it"
        )
    if key.compilers is None:
        raise NotBuilt(
            "lrfused's extension is compiled when it is needed, and there is no C++ compiler "
            f"({os.environ.get('CXX') or 'c++'}: not found)"
        )
    folder = cache.writable(key)
    if folder is None:
        raise NotBuilt("lrfused's extension has no folder to be compiled into: set LRFUSED_CACHE")
    entry = folder / key.compilers
    with _locked(entry.with_suffix(".lock")) as lock:
        record = None if again else cache.look_up(key)
        if record is None:
            record = _compile(entry, lock, tell)
    return _extension(record)


def _extension(record: Path) -> Path:
    """Return the path of the extension beside a build record. Raises NotBuilt if that failed."""
    error = (build_record.read(record) or {}).get("error")
    if error is not None:
        raise NotBuilt(
            f"lrfused's extension did not compile with torch {torch.__version__}: {error} "
            f"({record.parent}.log has all; `lrfused build --again` tries again)"
        )
    return record.with_suffix("")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Hold a lock that ends with its last holder, however that ends; give its file descriptor."""
    import fcntl  # not on Windows

    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _print("lrfused: waits for another process, which compiles the extension")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def _compile(entry: Path, lock: int, tell: Tell | None) -> Path:
    """Compile into an entry, in a process of its own; return the build record.

    That process inherits the lock: if this one is killed, it finishes, and others wait for it.
    """
    cache.sweep(entry)
    part = tempfile.mkdtemp(prefix=f"{entry.name}.part-", dir=entry.parent)
    log = entry.with_suffix(".log")
    _print(f"lrfused: compiles its extension for torch {torch.__version__}, once, {_time()}")
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", _CHILD, part, str(entry)], cwd=part, pass_fds=[lock],
            stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, env=_environment(),
        )  # fmt: skip
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.2)
            break
        if tell is not None:
            tell(*_progress(log))
    record = entry / build_record.NAME
    if process.returncode != 0:
        cache.sweep(entry)
        raise NotBuilt(f"the build of lrfused's extension ended early, {log} has all")
    return record


def _environment() -> dict[str, str]:
    """Return the environment of the process that compiles."""
    kept = {name: v for name, v in os.environ.items() if name not in _NOT_INHERITED}
    # The same modules as here, and the ninja that was installed beside them.
    scripts = {os.path.dirname(sys.executable), *map(_scripts, ("", "_user"))}
    return {
        **kept,
        VARIABLE: "never",
        # Without ninja, older setuptools compile C++ with this.
        "CC": os.environ.get("CXX") or "c++",
        "PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path if path),
        "PATH": os.pathsep.join([*filter(None, [os.environ.get("PATH")]), *sorted(scripts)]),
    }


def _scripts(suffix: str) -> str:
    scheme = f"{os.name}{suffix}" if suffix else sysconfig.get_default_scheme()
    return sysconfig.get_path("scripts", scheme)


def _time() -> str:
    """Return about how long it takes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    jobs = os.environ.get("MAX_JOBS", "")
    minutes = math.ceil(_SECONDS / 60 / max(1, int(jobs) if jobs.isdigit() else cores or 1))
    return f"about {minutes} minute{'s' if minutes > 1 else ''}"


def _progress(log: Path) -> tuple[int, int]:
    """Return how many files are compiled, and of how many, as ninja prints it."""
    told = re.findall(r"^\[(\d+)/(\d+)\]", log.read_text(errors="replace"), re.MULTILINE)
    return (int(told[-1][0]), int(told[-1][1])) if told else (0, 0)


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
