"""Build, test, check and time lrfused on a GPU; end with a short table.

    python benchmarks/gpu.py                 # all four parts
    python benchmarks/gpu.py --only time     # one part: build, test, sanitize or time
    python benchmarks/gpu.py --rehearse      # tiny, on the CPU, the kernels emulated

Nothing is downloaded. Results are written after each thing that was measured, to --json's file or
benchmarks/results/gpu-<device>.json; calls for other parts or cases add to the same file.
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from on_gpu import parts
from on_gpu.results import ROOT, Results, origin, table

PARTS = ("build", "test", "sanitize", "time")


def why_no_rehearsal() -> str | None:
    """Return why the kernels cannot be emulated here, or None."""
    from lrfused import backends

    if why := backends.available()["cuda"]:
        return why
    from lrfused import _C

    return "this lrfused was built for GPUs, whose kernels no CPU runs" if _C.on_gpu() else None


def time_steps(part: parts.Part, arguments: argparse.Namespace) -> bool:
    """Validate, then time, every contender on every case."""
    import torch
    from on_gpu import cases, machine, timings

    listed = cases.cases(shrink=4000 if part.rehearse else 1)
    words = arguments.case or [""]
    chosen = [case for case in listed if any(word in case.name for word in words)]
    if not chosen:
        raise ValueError(f"--case must be a part of one of {[c.name for c in listed]}, got {words}")
    limits = timings.Limits(arguments.rounds, arguments.seconds, part.deadline)
    on = machine.Machine(torch.device("cpu" if part.rehearse else "cuda"))
    gc.freeze()  # the modules, as garbage is collected around every contender
    try:
        return timings.measure_all(part.found, chosen, on, limits, part.save)
    finally:
        gc.unfreeze()


def run(name: str, part: parts.Part, arguments: argparse.Namespace) -> None:
    """Run a part; what goes wrong in it is a result, and the next part is run all the same."""
    import torch

    capability = (9, 0) if part.rehearse else torch.cuda.get_device_capability()
    runs = {
        "build": lambda: parts.build(part, capability),
        "test": lambda: parts.test(part),
        "sanitize": lambda: parts.sanitize(part),
        "time": lambda: time_steps(part, arguments),
    }
    try:
        part.found["ok"] = runs[name]()
        part.found["finished"] = True
    except Exception:
        part.found["errors"] = traceback.format_exc()
    finally:
        part.save()


def shown(name: str, found: dict[str, Any]) -> str:
    """Return a part's line, and what went wrong in it."""
    lines = [f"{name}: {'ok' if found['ok'] else 'FAILED'} {found.get('said', '')}".rstrip()]
    for where in (found, *(value for value in found.values() if isinstance(value, dict))):
        lines.extend([where["errors"]] if "errors" in where else [])
    return "\n".join([*lines, *found.get("skipped", [])])


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=PARTS, action="append", help="this part; may be repeated")
    parser.add_argument(
        "--case", action="append", help="time cases with this in their name; may be repeated"
    )
    parser.add_argument("--rounds", type=int, default=50, help="timed steps of a pass, at most")
    parser.add_argument("--seconds", type=float, default=1.0, help="that they may take")
    parser.add_argument("--minutes", type=float, default=9.0, help="that a part may take")
    parser.add_argument("--json", type=Path, help="the results file")
    parser.add_argument("--rehearse", action="store_true", help="run on the CPU, tiny")
    arguments = parser.parse_args()
    if arguments.rehearse:
        os.environ["LRFUSED_EMULATE_CUDA"] = "1"
        os.environ["TRITON_INTERPRET"] = "1"
    sys.path.insert(0, str(ROOT))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends what a part has started

    import torch

    if arguments.rehearse:
        if why := why_no_rehearsal():
            print(f"there can be no rehearsal here: {why}")
            return 1
    elif not torch.cuda.is_available():
        print("torch sees no CUDA device here; --rehearse runs on the CPU, tiny")
        return 1
    device = "CPU" if arguments.rehearse else torch.cuda.get_device_name()
    file = "gpu-" + re.sub(r"\W+", "-", device.lower()).strip("-") + ".json"
    path = arguments.json or (None if arguments.rehearse else ROOT / "benchmarks/results" / file)
    results, fine = Results(path), True
    for name in arguments.only or PARTS:
        found = results.begin(name, origin(device))
        deadline = time.monotonic() + 60 * arguments.minutes
        run(name, parts.Part(found, results.save, deadline, arguments.rehearse), arguments)
        print(shown(name, found), flush=True)
        fine &= found["ok"]
        if name == "build" and not found["ok"]:
            break
    if path is not None:
        print("written to", path)
    if "copy GB/s" in results.parts.get("time", {}):
        print(table(results.parts["time"]))
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
