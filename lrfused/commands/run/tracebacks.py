"""Print the tracebacks that a script would have had."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType, TracebackType

_HERE = str(Path(__file__).resolve().parent)


def hide_our_frames() -> None:
    """Leave the frames of this folder out of the traceback of an uncaught exception."""
    before = sys.excepthook

    def excepthook(
        kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        seen: set[int] = set()
        todo: list[BaseException | None] = [error]
        while todo:
            one = todo.pop()
            if one is not None and id(one) not in seen:
                seen.add(id(one))
                one.__traceback__ = _without_ours(one.__traceback__)
                todo += [one.__cause__, one.__context__]
        before(kind, error, _without_ours(traceback))

    sys.excepthook = excepthook


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
    return frame.f_code.co_filename.startswith(_HERE)
