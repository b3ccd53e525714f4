"""The folders in which compiled extensions are kept.

An entry is a folder, TORCH-PYTHON-HASH/COMPILERS, which holds an extension and its build record,
or after a failed build the record alone. Beside it are the log of the build and a lock.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch

from . import build_record, toolchain

_HERE = Path(__file__).resolve().parent
_INSTALLED, _IN_TREE = _HERE.parent / "csrc", _HERE.parents[1] / "csrc"
CSRC = _INSTALLED if _INSTALLED.is_dir() else _IN_TREE
_RECIPE = ("extension/compile.py", "extension/toolchain.py", "backends/cuda/architectures.py")
_FLAGS = ("CXX", "CFLAGS", "CPPFLAGS", "CXXFLAGS", "LDFLAGS", "LDSHARED", "LRFUSED_SANITIZE")
_NVCC_FLAGS = ("TORCH_CUDA_ARCH_LIST", "NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS")


@dataclass(frozen=True)
class Key:
    """The names of the entry for this torch, this Python, these sources and these compilers.

    compilers: None where there is no C++ compiler, or none may be called.
    """

    target: str
    compilers: str | None


def key() -> Key:
    """Return the key of this process."""
    python = EXTENSION_SUFFIXES[0].strip(".").partition(".")[0]
    libc = os.confstr("CS_GNU_LIBC_VERSION") if sys.platform == "linux" else sys.platform
    target = _digest(torch.version.git_version, libc, *_sources())
    return Key(f"torch-{torch.__version__}-{python}-{target}", _compilers())


def _sources() -> Iterator[str | bytes]:
    package = _HERE.parent
    yield from ((package / path).read_bytes() for path in _RECIPE)
    for path in sorted(path for path in CSRC.rglob("*") if path.is_file()):
        yield str(path.relative_to(CSRC))
        yield path.read_bytes()


def _compilers() -> str | None:
    cxx, nvcc = toolchain.cxx(), toolchain.nvcc()
    if cxx is None:
        return None
    parts = [toolchain.version(cxx), *(os.environ.get(name) for name in _FLAGS)]
    if nvcc is not None:
        parts += [nvcc, toolchain.version([nvcc]), *(os.environ.get(name) for name in _NVCC_FLAGS)]
    return _digest(*parts)


def _digest(*parts: str | bytes | None) -> str:
    whole = hashlib.sha256()
    for part in parts:
        piece = part if isinstance(part, bytes) else repr(part).encode()
        whole.update(b"%d:" % len(piece) + piece)
    return whole.hexdigest()[:16]


def look_up(key: Key) -> Path | None:
    """Return the build record of the entry, which may be that of a failed build; None if none is.

    Without compilers, an extension that any compiler made is taken.
    """
    for folder in filter(None, (_home(), _of_user() if _temporary().exists() else None)):
        pattern = f"{key.compilers or '*'}/{build_record.NAME}"
        for path in sorted((folder / key.target).glob(pattern)):
            record = build_record.read(path)
            if record is not None and record["error"] is not None and key.compilers:
                return path
            if record is not None and record["error"] is None and path.with_suffix("").exists():
                return path
    return None


def writable(key: Key) -> Path | None:
    """Return a folder for the entries of a target, made where need be; None if there is none."""
    for folder in (_home, _of_user):
        try:
            parent = folder()
            if parent is not None:
                (parent / key.target).mkdir(parents=True, exist_ok=True)
                if os.access(parent / key.target, os.W_OK | os.X_OK):
                    return parent / key.target
        except OSError:
            continue
    return None


def _home() -> Path | None:
    """Return the user's cache; None where there is no home."""
    if own := os.environ.get("LRFUSED_CACHE"):
        return Path(own).absolute()
    if os.path.isabs(base := os.environ.get("XDG_CACHE_HOME", "")):
        return Path(base) / "lrfused"
    home = os.path.expanduser("~")
    return Path(home) / ".cache" / "lrfused" if os.path.isabs(home) else None


def _temporary() -> Path:
    return Path(tempfile.gettempdir()) / f"lrfused-{os.getuid()}"


def _of_user() -> Path | None:
    """Return the folder under the temporary one, made if need be.

    Others may write there: one that is not this user's alone is None.
    """
    folder = _temporary()
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    own = found.st_uid == os.getuid() and not stat.S_IMODE(found.st_mode) & 0o077
    return folder if own and stat.S_ISDIR(found.st_mode) else None


def publish(made: Path, entry: Path) -> None:
    """Put a finished folder in the place of an entry; another process sees all of it or nothing.

    The caller holds the entry's lock.
    """
    if entry.exists():
        entry.rename(made.with_name(f"{made.name}.replaced"))
    made.rename(entry)


def sweep(entry: Path) -> None:
    """Remove what builds of an entry left behind. The caller holds the entry's lock."""
    for path in entry.parent.glob(f"{entry.name}.part-*"):
        shutil.rmtree(path, ignore_errors=True)
