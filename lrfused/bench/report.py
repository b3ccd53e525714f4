"""Describe the machine, weigh the timings against the targets, and print or write them."""

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

from . import schedule_cost
from .contenders import fastest

YARDSTICK = "in-place x.mul_"


@dataclass(frozen=True)
class Target:
    """Hold one promise about speed: at least `bound`, or with `most` at most that."""

    text: str
    value: float
    bound: float
    most: bool = False

    @property
    def reached(self) -> bool:
        """Compare the value with the bound."""
        return self.value <= self.bound if self.most else self.value >= self.bound


def cpu_model() -> str:
    """Read the processor's name from where the system keeps it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE)
        if found:
            return found.group(1).strip()
    return platform.processor() or platform.machine()


def device() -> dict[str, Any]:
    """Describe where the numbers were taken."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": cpu_model(),
        "cores": usable,
        "torch_threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """List the versions of what was measured."""
    return {
        "lrfused": lrfused.__version__,
        "backend": fastest(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def commit(folder: Path) -> dict[str, Any]:
    """Name the commit of the git checkout above `folder`, and whether it is changed (`dirty`)."""

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
    """Name the results file after the processor, its cores and the threads used."""
    name = f"{cpu_model()} {device()['cores']} cores {torch.get_num_threads()} threads"
    return folder / f"step-{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}.json"


def rates(case: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Turn a case's timings into GB/s, shares of the in-place pass and ratios to lrfused."""
    timings = case["timings"]
    ours = timings["lrfused"].median
    yardstick = 8 * case["yardstick_elements"] / timings[YARDSTICK].median / 1e6
    rows = {}
    for name, timing in timings.items():
        moved = case["elements"] * case["bytes_per_element"]
        speed = yardstick if name == YARDSTICK else moved / timing.median / 1e6
        rows[name] = {
            "median_ms": timing.median,
            "iqr_ms": timing.iqr,
            "gb_per_s": speed,
            "share_of_in_place": speed / yardstick,
            "ratio_to_lrfused": timing.median / ours,
        }
    return rows


def targets(cases: dict[str, dict[str, Any]], schedule: dict[str, Any] | None) -> list[Target]:
    """Set what was measured beside what was promised."""
    rows = {name: rates(case) for name, case in cases.items()}

    def bandwidth(case: str, floor: float, title: str) -> list[Target]:
        if case not in rows:
            return []
        value = rows[case]["lrfused"]["share_of_in_place"]
        return [Target(f"{title}: share of the in-place pass's bandwidth", value, floor)]

    def ratio(case: str, rival: str, floor: float, title: str) -> list[Target]:
        if case not in rows:
            return []
        return [Target(f"{title}: times {rival}", rows[case][rival]["ratio_to_lrfused"], floor)]

    found = [
        *bandwidth("resnet50", 0.90, "ResNet-50 fp32"),
        *ratio("resnet50", "torch fused", 1.25, "ResNet-50 fp32"),
        *ratio("resnet50", "torch for-loop", 2.2, "ResNet-50 fp32"),
        *ratio("resnet50-bf16", "torch foreach", 3.0, "ResNet-50 bf16"),
        *ratio("small", "torch fused", 60.0, "10,000 tensors of 64"),
        *ratio("large", "torch fused", 1.0, "one tensor of 25 M"),
        *bandwidth("large", 0.90, "one tensor of 25 M"),
    ]
    for name, timings in (schedule or {}).items():
        ours, theirs = schedule_cost.added(timings)
        # A plateau's metric comes by a call of its own; the others cost no call at all.
        bound = 1.0 if name == "ReduceLROnPlateau" else 0.10
        text = f"{name}: cost as a share of torch's scheduler.step()"
        share = ours / max(theirs, 1e-6)  # a difference of medians can be noise below zero
        found.append(Target(text, share, bound, most=True))
    return found


def save(
    path: Path,
    cases: dict[str, dict[str, Any]],
    schedule: dict[str, Any] | None,
    options: dict[str, Any],
    checkout: Path | None,
) -> None:
    """Write every number, with what is needed to judge it; `checkout` is a folder below git's."""
    content = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": device(),
        "versions": versions(),
        "commit": commit(checkout) if checkout else None,
        "options": options,
        "cases": {
            name: {
                "title": case["title"],
                "elements": case["elements"],
                "bytes_per_element": case["bytes_per_element"],
                "distance_to_oracle": case["distances"],
                "timings_ms": {k: asdict(v) for k, v in case["timings"].items()},
                "rates": rates(case),
            }
            for name, case in cases.items()
        },
        "schedule_ms": {
            name: {k: asdict(v) for k, v in timings.items()}
            for name, timings in (schedule or {}).items()
        },
        "targets": [{**asdict(t), "reached": t.reached} for t in targets(cases, schedule)],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")
