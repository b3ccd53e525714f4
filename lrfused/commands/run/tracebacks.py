"""Print the tracebacks that a script would have had."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from types import FrameType, TracebackType

_LRFUSED = str(Path(__file__).resolve().parents[2]) + os.sep


def hide_our_frames() -> None:
    """Leave the frames of lrfused out of the traceback of an uncaught exception."""
    before = sys.excepthook

    def excepthook(
        kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        _clean(error)
        before(kind, error, _without_ours(traceback))

    in_threads = threading.excepthook

    def excepthook_of_threads(args: threading.ExceptHookArgs) -> None:
        _clean(args.exc_value)
        cleaned = (args.exc_type, args.exc_value, _without_ours(args.exc_traceback), args.thread)
        in_threads(threading.ExceptHookArgs(cleaned))

    sys.excepthook = excepthook
    threading.excepthook = excepthook_of_threads


def _clean(error: BaseException | None) -> None:
    """Clean the traceback of an exception and of all that it was raised from."""
    seen: set[int] = set()
    todo = [error]
    while todo:
        one = todo.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            one.__traceback__ = _without_ours(one.__traceback__)
            todo += [one.__cause__, one.__context__]


def _without_ours(traceback: TracebackType | None) -> TracebackType | None:
    entries = []
    while traceback is not None:
        if not _is_ours(traceback.tb_frame):
            entries.append(traceback)
        traceback = traceback.tb_next
    for entry, following in zip(entries, [*entries[1:], None], strict=False):
        entry.tb_next = following
    return entries[0] if entries else None


def _is_ours(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_LRFUSED)
