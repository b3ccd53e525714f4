"""Load the compiled extension when imported; raise ImportError with the reason if it cannot be."""

from __future__ import annotations

from . import build_record

__all__ = ["MASTERS", "_C", "kernels_error"]

_record = build_record.read()
_reason = build_record.reason_not_to_load(_record)
if _record is None or _reason is not None:
    raise ImportError(_reason)

try:
    from .. import _C
except ImportError as error:
    raise ImportError(f"lrfused's extension cannot be loaded: {error}") from error

kernels_error = _record["kernels_error"]

# csrc's value for each key under which the state of a 16-bit parameter keeps its master.
MASTERS = {
    None: _C.Master.none,
    "master": _C.Master.whole,
    "master_remainder": _C.Master.remainder,
}
