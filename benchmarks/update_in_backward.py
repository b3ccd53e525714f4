"""Measure the peak memory that updates in the backward pass save.

Each way of training runs in a process of its own, as often as asked; the peak is the resident set's
(ru_maxrss). First all must have computed the same bits, or nothing is written and the exit status
is 1.
"""

import argparse
import hashlib
import json
import re
import resource
import statistics
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

import lrfused
from lrfused.commands.bench import report

RESULTS = Path(__file__).resolve().parent / "results"
WAYS = ("torch", "step", "in backward")
MIB = 2**20


def train(way: str, layers: int, width: int, steps: int) -> dict[str, Any]:
    """Train a network of square layers with momentum; return a digest of its bits, and the peak."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(*(torch.nn.Linear(width, width, bias=False) for _ in range(layers)))
    hyper = {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4}
    if way == "torch":
        optimizer = torch.optim.SGD(model.parameters(), foreach=False, **hyper)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    else:
        schedule = lrfused.StepLR(2)
        optimizer = lrfused.FusedDecaySGD(model.parameters(), schedule=schedule, **hyper)
        scheduler = None
    if way == "in backward":
        lrfused.update_in_backward(optimizer)
    for _ in range(steps):
        model(torch.randn(8, width)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        if scheduler is not None:
            scheduler.step()
    digest = hashlib.sha256()
    for p in model.parameters():
        digest.update(p.detach().numpy().tobytes())
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {"bits": digest.hexdigest(), "peak_mib": peak / MIB}


def measure(way: str, options: argparse.Namespace) -> dict[str, Any]:
    """Train in a process of its own."""
    command = [sys.executable, __file__, "--way", way]
    for name in ("layers", "width", "steps"):
        command += [f"--{name}", str(getattr(options, name))]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--width", type=int, default=1536)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3, help="processes for each way")
    parser.add_argument("--out", type=Path, help="JSON file; by default in results/")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)  # in the child processes
    options = parser.parse_args()
    if options.way is not None:
        print(json.dumps(train(options.way, options.layers, options.width, options.steps)))
        return 0

    runs = {way: [measure(way, options) for _ in range(options.repeats)] for way in WAYS}
    if len({run["bits"] for each in runs.values() for run in each}) != 1:
        print("the bits differ: nothing is measured", file=sys.stderr)
        return 1
    gradients = options.layers * options.width**2 * 4 / MIB
    peaks = {way: statistics.median(run["peak_mib"] for run in runs[way]) for way in WAYS}
    saved = peaks["step"] - peaks["in backward"]
    for way, peak in peaks.items():
        print(f"{way:12} {peak:8.0f} MiB at the peak")
    print(f"saved: {saved:.0f} MiB of {gradients:.0f} MiB of gradients ({saved / gradients:.0%})")

    processor = re.sub(r"[^a-z0-9]+", "-", report.cpu_model().lower()).strip("-")
    path = options.out or RESULTS / f"update-in-backward-{processor}.json"
    content = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": report.device(),
        "versions": report.versions(),
        "commit": report.commit(RESULTS),
        "options": {k: getattr(options, k) for k in ("layers", "width", "steps", "repeats")},
        "peak_mib": {way: [run["peak_mib"] for run in each] for way, each in runs.items()},
        "gradients_mib": gradients,
        "saved_mib": saved,
        "saved_share_of_gradients": saved / gradients,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
