"""Describe the machine, compare the timings with the targets, and write all of it."""

import importlib.metadata
import json
import os
import platform
import re
import subprocess
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

import lrfused

from .contenders import FOR_LOOP, FOREACH, FUSED, LRFUSED, fastest
from .rivals import PACKAGES


@dataclass(frozen=True)
class Target:
    """Hold one target: the value must be at least `bound`, or with `most` at most `bound`."""

    text: str
    value: float
    bound: float
    most: bool = False

    @property
    def reached(self) -> bool:
        """Return whether the value keeps to the bound."""
        return self.value <= self.bound if self.most else self.value >= self.bound


def cpu_model() -> str:
    """Return the processor's name."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE)
        if found:
            return found.group(1).strip()
    return platform.processor() or platform.machine()


def device() -> dict[str, Any]:
    """Describe the machine."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": cpu_model(),
        "cores": usable,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str | None]:
    """Return the versions of lrfused, torch, Python and the competitors."""
    return {
        "lrfused": lrfused.__version__,
        "backend": fastest(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        **{package: _version(package) for package in PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit(folder: Path) -> dict[str, Any]:
    """Return the commit of the checkout above `folder`, and whether files differ (`dirty`)."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *arguments], cwd=folder.parent, capture_output=True, text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    status = git("status", "--porcelain", "--", "..", ":!results")
    return {
        "hash": git("rev-parse", "--verify", "HEAD"),
        "dirty": None if status is None else bool(status),
    }


def default_path(folder: Path) -> Path:
    """Return the results file, named after the processor and its cores."""
    name = f"{cpu_model()} {device()['cores']} cores"
    return folder / f"step-{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}.json"


def rates(step: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return a case's timings as GB/s, shares of the in-place pass and ratios to lrfused."""
    timed = {row["name"]: row for row in step["rows"] if not row["not_timed"]}
    moved = step["elements"] * step["bytes_per_element"] / 1e6
    return {
        name: {
            "median_ms": row["median"],
            "iqr_ms": row["high"] - row["low"],
            "gb_per_s": moved / row["median"],
            "share_of_in_place": moved / row["median"] / step["in_place_gb_per_s"],
            "ratio_to_lrfused": row["median"] / timed[LRFUSED]["median"],
        }
        for name, row in timed.items()
    }


def limit_ms(step: dict[str, Any]) -> float:
    """Return the time in which an in-place pass moves as many bytes as the step must."""
    return float(step["elements"] * step["bytes_per_element"] / step["in_place_gb_per_s"] / 1e6)


def added(row: dict[str, Any]) -> tuple[float, float]:
    """Return the milliseconds that a schedule adds to a step: in lrfused, and in torch."""
    return (
        row["with"]["median"] - row["without"]["median"],
        row["torch with"]["median"] - row["torch without"]["median"],
    )


def targets(found: dict[str, Any]) -> list[Target]:
    """Return the targets, with the values measured with the most threads."""
    most = max((step["threads"] for step in found["steps"]), default=0)
    rows = {step["case"]: rates(step) for step in found["steps"] if step["threads"] == most}

    def bandwidth(case: str, floor: float, title: str) -> list[Target]:
        ours = rows.get(case, {}).get(LRFUSED)
        text = f"{title}: share of the in-place pass's bandwidth"
        return [Target(text, ours["share_of_in_place"], floor)] if ours else []

    def ratio(case: str, rival: str, floor: float, title: str) -> list[Target]:
        theirs = rows.get(case, {}).get(rival)
        return (
            [Target(f"{title}: times {rival}", theirs["ratio_to_lrfused"], floor)] if theirs else []
        )

    goals = [
        *bandwidth("resnet50", 0.90, "ResNet-50 fp32"),
        *ratio("resnet50", FUSED, 1.25, "ResNet-50 fp32"),
        *ratio("resnet50", FOR_LOOP, 2.2, "ResNet-50 fp32"),
        *ratio("resnet50-bf16", FOREACH, 3.0, "ResNet-50 bf16"),
        *ratio("small", FUSED, 60.0, "10,000 tensors of 64"),
        *ratio("large", FUSED, 1.0, "one large tensor"),
        *bandwidth("large", 0.90, "one large tensor"),
    ]
    for row in found["schedule"]:
        ours, theirs = added(row)
        # A plateau's metric needs a call; the other schedules need none.
        bound = 1.0 if row["name"] == "ReduceLROnPlateau" else 0.10
        text = f"{row['name']}: cost as a share of torch's scheduler.step()"
        share = ours / max(theirs, 1e-6)  # noise can make a difference of medians negative
        goals.append(Target(text, share, bound, most=True))
    if "import_ms" in found:
        goals.append(Target("import, ms beyond torch's", found["import_ms"], 100.0, most=True))
    return goals


def save(path: Path, found: dict[str, Any], options: dict[str, Any], checkout: Path | None) -> None:
    """Write every number, with machine, versions and commit; `checkout` is inside a checkout."""
    content = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": device(),
        "versions": versions(),
        "commit": commit(checkout) if checkout else None,
        "options": options,
        **found,
        "targets": [{**asdict(t), "reached": t.reached} for t in targets(found)],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")
