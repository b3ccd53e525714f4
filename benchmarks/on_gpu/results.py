"""The results file: written after each measurement, and merged by later calls."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SAME = ("device", "sources", "torch")  # of a part's origin, for its earlier cases to be kept


class Results:
    """The file as a dictionary for each part; without a path nothing is written."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.parts: dict[str, Any] = {}
        if path is not None and path.exists():
            self.parts = json.loads(path.read_text())

    def begin(self, part: str, origin: dict[str, Any]) -> dict[str, Any]:
        """Return the dictionary that a part fills, with the cases that it measured before.

        Cases of another device, torch or state of the sources are dropped.
        """
        before = self.parts.get(part, {})
        kept = all(before.get("origin", {}).get(key) == origin[key] for key in SAME)
        found = {"ok": False, "finished": False, "origin": origin}
        if kept and "cases" in before:
            found["cases"] = before["cases"]
        self.parts[part] = found
        self.save()
        return found

    def save(self) -> None:
        """Replace the file at once, so that whoever interrupts leaves a whole one."""
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft = self._path.with_name(self._path.name + ".draft")
        draft.write_text(json.dumps(self.parts, indent=1) + "\n")
        draft.replace(self._path)


def origin(device: str) -> dict[str, Any]:
    """Describe the device, the sources and the versions that a part's results hold for."""
    import torch

    return {
        "device": device,
        "driver": _said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "commit": _said("git", "describe", "--always", "--dirty")
        or os.environ.get("LRFUSED_COMMIT"),
        "sources": sources(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": sys.version.split()[0],
        "date": datetime.datetime.now().isoformat(timespec="seconds"),
    }


def sources() -> str:
    """Return a digest of the files that lrfused is built from, which needs no git."""
    files = [*ROOT.glob("csrc/**/*"), *ROOT.glob("lrfused/**/*.py"), ROOT / "setup.py"]
    digest = hashlib.sha256()
    for path in sorted(path for path in files if path.is_file()):
        digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _said(*command: str) -> str | None:
    """Return the output of a command; None if there is no such command, or it fails."""
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None if done.returncode == 0 else None


def table(found: dict[str, Any]) -> str:
    """Lay out the medians of the timings."""
    head = (
        f"{'':28}{'device us':>11}{'of copy':>9}{'kernels us':>12}{'host us':>10}{'launches':>10}"
    )
    lines = [f"a copy moves {found['copy GB/s']:.0f} GB/s; medians, L2 cold", head]
    for case, rows in found["cases"].items():
        lines.append(case)
        lines.extend(f"  {name:25}{_cells(row)}".rstrip() for name, row in rows.items())
    lines.append("* not torch's for-loop to the bit, or where clipped not the reference")
    return "\n".join(lines)


def _cells(row: dict[str, Any]) -> str:
    said = next((f" {key}: {row[key]}" for key in ("failed", "left out") if key in row), None)
    if said is not None:
        return said
    mark = "*" if row["differing"] else " "
    if "device us" not in row:
        return f"{mark}{row.get('broken', 'validated, not timed'):>20}"
    kernels, launches = row.get("kernels us"), row.get("launches")
    return (
        f"{mark}{row['device us']:10.1f}{row['of copy']:9.0%}"
        f"{'' if kernels is None else f'{kernels:.1f}':>12}{row['host us']:10.1f}"
        f"{'' if launches is None else f'{launches:g}':>10}"
        + "".join(f"  {key}: {row[key]}" for key in ("broken", "not profiled") if key in row)
    )
