"""The settings of `lrfused run`, which its processes inherit in an environment variable."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

VARIABLE = "LRFUSED_RUN"


@dataclass(frozen=True)
class Settings:
    """Hold what every process of a run needs.

    main: id of the process that runs the script and reports. records: a folder for the records of
    the other processes, made by the first of them. check: N of `--check`, 0 for no checks.
    torchs: whether torch makes all steps, for `--baseline`. baseline: a folder for the
    records of such a run.
    """

    main: int
    records: str
    check: int = 0
    torchs: bool = False
    baseline: str | None = None

    def dumps(self) -> str:
        """Return the value of the environment variable."""
        return json.dumps(asdict(self))

    def is_checked(self, step: int) -> bool:
        """Return whether to check a step: the first N, then N/2 in each doubling of the run."""
        if not self.check:
            return False
        gap = 1
        while self.check * gap < step:
            gap *= 2
        return step % gap == 0
