"""The build record beside an extension: the torch it is for, or why it is missing."""

from __future__ import annotations

import json
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch

NAME = f"_C{EXTENSION_SUFFIXES[0]}.json"
PATH = Path(__file__).parent.with_name(NAME)  # of the extension that was installed with lrfused

Record = dict[str, "str | None"]  # "torch", "error", "kernels_error"


def read(path: Path = PATH) -> Record | None:
    """Return the build record; None if it is missing or unreadable."""
    try:
        record: Record = json.loads(path.read_text())
        known = isinstance(record, dict) and record.keys() >= {"torch", "error", "kernels_error"}
        return record if known else None
    except (OSError, ValueError):
        return None


def reason_not_to_load(record: Record | None) -> str | None:
    """Return why the extension must not be loaded into this torch, or None if it may."""
    if record is None:
        return "lrfused was installed without its extension"
    built_for = str(record["torch"])
    if record["error"] is not None:
        return f"lrfused's extension did not compile with torch {built_for}: {record['error']}"
    # Within a minor version torch keeps its C++ interface.
    if built_for.split(".")[:2] != torch.__version__.split(".")[:2]:
        return (
            f"lrfused's extension was compiled for torch {built_for}, and this is torch "
            f"{torch.__version__}"
        )
    return None
