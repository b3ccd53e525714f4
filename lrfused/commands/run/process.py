"""Take part in `lrfused run`: each process does, from its import of torch to its end."""

from __future__ import annotations

import contextlib
import multiprocessing.util
import os
import sys
import time
from pathlib import Path
from typing import Any

from . import records
from .followed import Registry
from .patches import patch
from .records import Record
from .settings import Settings
from .tally import by_row
from .tracebacks import hide_our_frames


class Process:
    """Hold the settings and the tallies of this process."""

    def __init__(self, settings: Settings, started: float) -> None:
        self.settings = settings
        self.started = started
        self.registry = Registry("torch, first run" if settings.torchs else None)
        # multiprocessing ends its forked processes without atexit.
        multiprocessing.util.register_after_fork(self, Process._finalize)

    def record(self) -> Record:
        """Return what this process has counted so far."""
        seconds = time.monotonic() - self.started
        return Record(records.label(), seconds, by_row(self.registry.tallies))

    def write(self) -> None:
        """Leave a record for the main process, if there is anything to count."""
        if self.registry.tallies:
            self.record().write(Path(self.settings.records) / f"{os.getpid()}.json")

    def after_fork(self) -> None:
        """Begin anew in a forked process."""
        self.registry.clear()
        self.started = time.monotonic()

    def _finalize(self) -> None:
        multiprocessing.util.Finalize(None, self.write, exitpriority=0)

    def finish(self) -> None:
        """Leave a record or, in the main process, report; a difference makes the status 1."""
        if self.settings.main != os.getpid():
            return self.write()
        own = self.record()
        others = records.take(Path(self.settings.records))
        if self.settings.torchs:
            for i, record in enumerate([own, *others]):
                record.write(Path(str(self.settings.baseline)) / f"{i}.json")
            return None
        from .report import report  # here, since only the main process needs it

        found = [r for r in [own, *others] if r.rows]
        report(own.seconds, found, records.take_baseline(self.settings.baseline))
        if any(row.differing for record in found for row in record.rows):
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(AttributeError, OSError, ValueError):  # None or closed
                    stream.flush()
            os._exit(1)  # nothing else can change the status so late
        return None


_process: Process | None = None


def install(settings: dict[str, Any], started: float) -> None:
    """Change torch.optim.SGD, directly after torch's import."""
    global _process
    _process = Process(Settings(**settings), started)
    patch(_process.registry, _process.settings)
    hide_our_frames()
    os.register_at_fork(after_in_child=_process.after_fork)


def finish() -> None:
    """End this process's part, when the script and all that it registered with atexit have."""
    if _process is not None:
        _process.finish()
