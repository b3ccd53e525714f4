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

from .contenders import FOR_LOOP, FUSED, LRFUSED, fastest
from .rivals import PACKAGES

EQUAL = 1.05  # the ratio of two times that noise may show though neither is slower
TENSOR_NS = 90.0  # of the case of 10,000 tensors
# For each model, torch's for-loop and its fused over lrfused: zero_grad, step and schedule.
LOOPS = {
    "mlp": {FOR_LOOP: 7.0, FUSED: 4.5},
    "cnn": {FOR_LOOP: 7.0, FUSED: 4.0},
    "deep": {FOR_LOOP: 20.0, FUSED: 5.5},
}


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
    # Of the same rounds: a field's may be faster for all than another field's.
    ratios = {name: row["ratio"] for name, row in timed.items()}
    return {
        name: {
            "median_ms": row["median"],
            "iqr_ms": row["high"] - row["low"],
            "gb_per_s": moved / row["median"],
            "share_of_in_place": step["share_of_in_place"] / ratios[name],
            "ratio_to_lrfused": ratios[name],
        }
        for name, row in timed.items()
    }


def added(row: dict[str, Any]) -> tuple[float, float]:
    """Return the milliseconds that a schedule adds to a step: in lrfused, and in torch."""
    return (
        row["with"]["median"] - row["without"]["median"],
        row["torch with"]["median"] - row["torch without"]["median"],
    )


def loop_rates(training: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return the median microseconds of an iteration's parts, and their ratios to lrfused's."""
    timed = {row["name"]: row for row in training["rows"] if not row["not_timed"]}
    ours = timed[LRFUSED]
    return {
        name: {
            "zero_grad_us": 1e3 * row["zero_grad"]["median"],
            "step_us": 1e3 * row["step"]["median"],
            "both_us": 1e3 * row["both"]["median"],
            "iteration_us": 1e3 * row["iteration"]["median"],
            "share_of_iteration": row["both"]["median"] / row["iteration"]["median"],
            "ratio_to_lrfused": row["both"]["median"] / ours["both"]["median"],
            "iteration_to_lrfused": row["iteration"]["median"] / ours["iteration"]["median"],
        }
        for name, row in timed.items()
    }


def targets(found: dict[str, Any]) -> list[Target]:
    """Return the targets with their values: of steps, those measured with the most threads."""
    return [
        *_step_targets(found["steps"]),
        *_loop_targets(found["loop"]),
        *_thread_targets(found["threads"]),
        *_schedule_targets(found["schedule"]),
        *(
            [Target("import, ms beyond torch's", found["import_ms"], 100.0, most=True)]
            if "import_ms" in found
            else []
        ),
    ]


def _step_targets(steps: list[dict[str, Any]]) -> list[Target]:
    most = max((step["threads"] for step in steps), default=0)
    goals = []
    for step in steps:
        if step["threads"] != most or "share_of_in_place" not in step:
            continue
        found = rates(step)
        ours = found.pop(LRFUSED)
        if step["case"] in ("resnet50", "large"):
            text = f"{step['title']}: share of the in-place pass's bandwidth"
            goals.append(Target(text, ours["share_of_in_place"], 0.90))
        if step["case"] == "small":
            text = f"{step['title']}: ns a tensor"
            value = 1e6 * ours["median_ms"] / step["tensors"]
            goals.append(Target(text, value, TENSOR_NS, most=True))
        if found:
            fastest = min(found, key=lambda name: found[name]["ratio_to_lrfused"])
            text = f"{step['title']}: share of the fastest rival's time, {fastest}"
            share = 1 / found[fastest]["ratio_to_lrfused"]
            goals.append(Target(text, share, EQUAL, most=True))
    return goals


def _loop_targets(loop: list[dict[str, Any]]) -> list[Target]:
    goals = []
    for case, bounds in LOOPS.items():
        several = [training for training in loop if training["case"] == case]
        for rival, bound in bounds.items():
            found = [loop_rates(training).get(rival) for training in several]
            ratios = [row["ratio_to_lrfused"] for row in found if row]
            if ratios:
                text = f"training, {several[0]['title']}: zero_grad and step, times {rival}"
                goals.append(Target(text, min(ratios), bound))
    return goals


def _thread_targets(scaling: list[dict[str, Any]]) -> list[Target]:
    ratios = {
        row["ratio"]: case for case in scaling for row in case["rows"] if row["name"] == LRFUSED
    }
    if not ratios:
        return []
    worst = max(ratios)
    case = ratios[worst]
    text = f"{case['threads']} threads' time as a share of one's, at worst: {case['title']}"
    return [Target(text, worst, EQUAL, most=True)]


def _schedule_targets(schedules: list[dict[str, Any]]) -> list[Target]:
    goals = []
    for row in schedules:
        ours, theirs = added(row)
        # A plateau's metric needs a call; the other schedules need none.
        bound = 1.0 if row["name"] == "ReduceLROnPlateau" else 0.10
        text = f"{row['name']}: cost as a share of torch's scheduler.step()"
        share = ours / max(theirs, 1e-6)  # noise can make a difference of medians negative
        goals.append(Target(text, share, bound, most=True))
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
