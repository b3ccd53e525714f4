"""The compiled extension: importing this module loads it, or raises ImportError with the reason."""

from __future__ import annotations

import json
from pathlib import Path

import torch

__all__ = ["_C", "kernels_error"]


def build_record() -> dict[str, str | None]:
    """Return what setup.py recorded: the torch built for, and the errors of what is not there."""
    path = Path(__file__).with_name("_build.json")
    record: dict[str, str | None] = json.loads(path.read_text()) if path.exists() else {}
    return record


def reason_not_to_load(record: dict[str, str | None]) -> str | None:
    """Return why the extension must not be loaded into this torch, or None if it may."""
    built_for = record.get("torch")
    if built_for is None:
        return "lrfused was installed without its extension"
    if record["error"] is not None:
        return f"lrfused's extension did not compile with torch {built_for}: {record['error']}"
    # Within a minor version torch keeps its C++ interface.
    if built_for.split(".")[:2] != torch.__version__.split(".")[:2]:
        return (
            f"lrfused's extension was compiled for torch {built_for}, and this is torch "
            f"{torch.__version__}; install lrfused again"
        )
    return None


_record = build_record()
_reason = reason_not_to_load(_record)
if _reason is not None:
    raise ImportError(_reason)

try:
    from . import _C
except ImportError as error:
    raise ImportError(f"lrfused's extension cannot be loaded: {error}") from error

kernels_error = _record["kernels_error"]
