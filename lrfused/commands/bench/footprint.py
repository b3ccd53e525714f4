"""Measure the memory of a step beyond its tensors, and the time of `import lrfused`."""

import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from .cases import Case
from .contenders import OWN, Unable
from .numbers import Numbers
from .rivals import RIVALS

IMPORTS = 5
_TIMED_IMPORT = """
import time, torch
begin = time.perf_counter()
import lrfused
print(1e3 * (time.perf_counter() - begin))
"""
MEASURED = {
    **OWN,
    **{name: RIVALS[name] for name in ("optax on JAX", "torch-optimi", "flashoptim")},
}


def peak(name: str, case: Case) -> dict[str, Any]:
    """Return the peak resident memory of some steps, less parameters, gradients and momenta.

    Call it in a process of its own: an allocator does not return memory. The memory of a compiler
    counts. In MB, or with the reason why it cannot be measured.
    """
    try:
        contender = MEASURED[name](case)
    except Unable as reason:
        return {"name": name, "not_measured": str(reason)}
    contender.give(Numbers(case.dtype, seed=2), 0)
    before = _status("VmRSS")
    for _ in range(4):
        contender.step()
    after = _status("VmHWM")
    if before is None or after is None:
        return {"name": name, "not_measured": "this system does not tell a process's peak"}
    beyond = after - max(before, 0) - case.bytes_held // 3
    return {"name": name, "not_measured": None, "beyond_mb": beyond / 1e6}


def import_ms() -> float:
    """Return the median time of `import lrfused` after `import torch`, each in a new process."""
    command = [sys.executable, "-c", _TIMED_IMPORT]
    runs = [
        subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(IMPORTS)
    ]
    return statistics.median(float(run.stdout) for run in runs)


def _status(key: str) -> int | None:
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    found = re.search(rf"^{key}:\s*(\d+) kB$", status.read_text(), re.MULTILINE)
    return int(found.group(1)) * 1024 if found else None
