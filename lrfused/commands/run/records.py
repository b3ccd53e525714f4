"""Exchange the tallies of a run's processes in files."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .tally import Tally


@dataclass
class Record:
    """Hold what a process leaves: its label, its seconds, and a tally for each row."""

    label: str
    seconds: float
    rows: list[Tally]

    def write(self, path: Path) -> None:
        """Write the record; another process never sees a part of it."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(asdict(self)))
        part.replace(path)

    @classmethod
    def read(cls, path: Path) -> Record:
        """Read a record."""
        fields: dict[str, Any] = json.loads(path.read_text())
        return cls(**{**fields, "rows": [Tally(**row) for row in fields["rows"]]})


def label() -> str:
    """Return a name for this process: its rank, if it has one."""
    rank = os.environ.get("RANK")
    return f"process {os.getpid()}" if rank is None else f"rank {rank}"


def take(folder: Path) -> list[Record]:
    """Return all records in a folder, and remove it."""
    found = [Record.read(path) for path in sorted(folder.glob("*.json"))]
    shutil.rmtree(folder, ignore_errors=True)
    return sorted(found, key=lambda record: (len(record.label), record.label))


def take_baseline(path: str | None) -> list[Record]:
    """Return the records of the run with torch's own SGD, and remove them."""
    return [] if path is None else take(Path(path))
