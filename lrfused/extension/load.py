"""Load the compiled extension when imported; raise ImportError with the reason if it cannot be.

It is the one that was installed with lrfused, if it fits, or else the one in the cache, which is
compiled now if it is not there.
"""

from __future__ import annotations

import importlib
import os
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from . import PROCESS, build, build_record

__all__ = ["MASTERS", "_C", "kernels_error"]

_NAME = f"{__package__.rpartition('.')[0]}._C"


def _load() -> Path:
    """Load the module as lrfused._C; return the path of its build record."""
    record = build_record.read()
    reason = build_record.reason_not_to_load(record)
    if reason is None:
        try:
            importlib.import_module(_NAME)
            return build_record.PATH
        except ImportError as error:
            reason = f"lrfused's extension cannot be loaded: {error}"
    path = build.once()
    if isinstance(path, build.NotBuilt):
        raise ImportError(str(path) if record is None else f"{reason}; {path}")
    _load_from(path)
    return path.with_name(build_record.NAME)


def _load_from(path: Path) -> None:
    spec = spec_from_file_location(_NAME, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"lrfused's extension cannot be loaded: {path} is no module")
    try:
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
    except ImportError as error:
        raise ImportError(
            f"lrfused's extension cannot be loaded: {error}; `lrfused build --again` compiles it"
        ) from error
    sys.modules[_NAME] = module


_record = _load()

from .. import _C  # noqa: E402, it is loaded

if os.getpid() != PROCESS:
    _C.note_fork()

kernels_error = (build_record.read(_record) or {}).get("kernels_error")

# csrc's value for each key under which the state of a 16-bit parameter keeps its master.
MASTERS = {
    None: _C.Master.none,
    "master": _C.Master.whole,
    "master_remainder": _C.Master.remainder,
}
