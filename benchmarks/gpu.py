"""Build, test, check and time lrfused on a GPU, in one command that ends with a short table.

    python benchmarks/gpu.py                 # all of it, in under ten minutes
    python benchmarks/gpu.py --only time     # one part: build, test, sanitize or time
    python benchmarks/gpu.py --rehearse      # tiny, on the CPU, the kernels emulated

Nothing is downloaded. Results go to benchmarks/results/gpu-<device>.json, with device and commit.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("build", "test", "sanitize", "time")

SANITIZED = """
import torch
from lrfused import FusedDecaySGD, ReduceLROnPlateau, StepLR
sizes = [1, 7, 33, 1025, 70000] + [3] * 1000
params = [torch.randn(n, device="cuda", dtype=d).requires_grad_()
          for n in sizes for d in (torch.float32, torch.bfloat16, torch.float16, torch.float64)]
for p in params:
    p.grad = torch.randn(p.numel() + 1, device="cuda", dtype=p.dtype)[1:]
for some, more in (
    (params, {}), (params[:20], {}), (params, {"max_grad_norm": 1.0}),
    (params, {"master_weights": True}), (params[:20], {"master_weights": True}),
    (params[1:20:4], {"master_weights": "remainder", "max_grad_norm": 1.0}),
):
    opt = FusedDecaySGD(some, lr=0.1, momentum=0.9, weight_decay=0.01, backend="cuda",
                        schedule=[StepLR(2), ReduceLROnPlateau(patience=0)], **more)
    for step in range(3):
        opt.step()
        opt.scheduler.step(torch.tensor(float(step), device="cuda"))
torch.cuda.synchronize()
print("sanitized:", opt.scheduler.get_last_lr())
"""


def call(*command: str, **environment: str) -> tuple[bool, float, str]:
    """Run a command in the repository; return whether it succeeded, seconds, and its output."""
    begin = time.perf_counter()
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    return done.returncode == 0, time.perf_counter() - begin, done.stdout


def build(arch: str) -> dict[str, Any]:
    """Build in place, for this GPU alone."""
    ok, seconds, output = call(
        sys.executable, "setup.py", "build_ext", "--inplace",
        TORCH_CUDA_ARCH_LIST=arch, LRFUSED_REQUIRE_EXTENSION="1",
    )  # fmt: skip
    return {"ok": ok, "seconds": seconds, "tail": output[-3000:] if not ok else ""}


def test() -> dict[str, Any]:
    """Run the tests that need a GPU."""
    ok, seconds, output = call(
        sys.executable, "-m", "pytest", "-m", "gpu", "-q", "--no-header", "-p", "no:cacheprovider",
        "-W", "default", "--tb=short", "-x", "--maxfail=20",
    )  # fmt: skip
    lines = output.strip().splitlines()
    return {
        "ok": ok,
        "seconds": seconds,
        "said": lines[-1:],
        "tail": output[-6000:] if not ok else "",
    }


def sanitize() -> dict[str, Any]:
    """Run a small case under each of compute-sanitizer's tools that concern it."""
    tool = shutil.which("compute-sanitizer") or shutil.which(
        "compute-sanitizer", path="/usr/local/cuda/bin"
    )
    if tool is None:
        return {"ok": False, "said": "there is no compute-sanitizer here"}
    told: dict[str, Any] = {"ok": True}
    for name in ("memcheck", "racecheck", "synccheck"):
        ok, seconds, output = call(
            tool, "--tool", name, "--error-exitcode", "7", sys.executable, "-c", SANITIZED
        )
        told["ok"] &= ok
        told[name] = {"ok": ok, "seconds": seconds, "tail": output[-1500:]}
    return told


def timings(rehearse: bool, rounds: int, minutes: float) -> dict[str, Any]:
    """Validate, then time, every contender on every case, while there is time."""
    import torch

    from benchmarks import gpu_steps

    machine = gpu_steps.Machine(torch.device("cpu" if rehearse else "cuda"))
    deadline = time.monotonic() + 60 * minutes
    copied = machine.copy_bandwidth(rounds)
    found: dict[str, Any] = {"copy GB/s": copied / 1e9, "cases": {}}
    for case in gpu_steps.cases(shrink=1000 if rehearse else 1):
        rows: dict[str, Any] = {}
        oracle = None
        for make in gpu_steps.contenders(case, machine):
            if time.monotonic() > deadline:
                rows["left out"] = "there was no time"
                break
            contender = make()
            values = gpu_steps.run(contender, gpu_steps.VALIDATION_STEPS)
            oracle = values if oracle is None else oracle
            wrong = gpu_steps.differing(values, oracle)
            promised = machine.gpu or case.dtype == torch.float32 or case.beside
            if wrong and contender.exact and promised:
                raise AssertionError(f"{case.name}: {contender.name} differs in {wrong} values")
            if contender.timed:
                result = gpu_steps.measure(contender, machine, rounds)
                spent = result.kernels if machine.gpu else result.total
                rows[contender.name] = {
                    "kernels us": result.kernels, "total us": result.total, "host us": result.host,
                    "launches": result.launches, "differing": wrong,
                    "of copy": case.bytes / (spent * 1e-6) / copied, "samples": result.samples,
                }  # fmt: skip
            del contender, values, make
            gc.collect()
        found["cases"][case.name] = rows
    return found


def table(found: dict[str, Any]) -> str:
    """Lay out the medians."""
    head = f"{'':28}{'kernels':>10}{'of copy':>9}{'host+device':>13}{'host':>9}{'launches':>10}"
    lines = [f"a copy moves {found['copy GB/s']:.0f} GB/s; medians in us, L2 cold", head]
    for case, rows in found["cases"].items():
        lines.append(case)
        for name, row in rows.items():
            if isinstance(row, str):
                lines.append(f"  {name}: {row}")
                continue
            mark = "*" if row["differing"] else " "
            lines.append(
                f"  {name:25}{mark}{row['kernels us']:10.1f}{row['of copy']:9.0%}"
                f"{row['total us']:13.1f}{row['host us']:9.1f}{row['launches']:10}"
            )
    return "\n".join([*lines, "* not torch's for-loop to the bit, or where clipped the reference"])


def commit() -> str:
    """Name the commit, or say that it is unknown."""
    ok, _, output = call("git", "describe", "--always", "--dirty")
    return output.strip() if ok else os.environ.get("LRFUSED_COMMIT", "unknown")


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=PARTS, action="append", help="this part; may be repeated")
    parser.add_argument("--rounds", type=int, default=50, help="timed steps of each contender")
    parser.add_argument("--minutes", type=float, default=5.0, help="for the timings")
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--rehearse", action="store_true", help="run the timings on the CPU, tiny")
    arguments = parser.parse_args()
    parts = arguments.only or (["time"] if arguments.rehearse else list(PARTS))
    if arguments.rehearse:
        os.environ["LRFUSED_EMULATE_CUDA"] = "1"
        os.environ["TRITON_INTERPRET"] = "1"
    sys.path.insert(0, str(ROOT))

    import torch

    if not arguments.rehearse and not torch.cuda.is_available():
        print("torch sees no CUDA device here; --rehearse runs the timings on the CPU, tiny")
        return 1
    name = "CPU" if arguments.rehearse else torch.cuda.get_device_name()
    found: dict[str, Any] = {
        "device": name, "commit": commit(), "torch": torch.__version__, "cuda": torch.version.cuda,
        "python": sys.version.split()[0], "date": datetime.date.today().isoformat(),
    }  # fmt: skip
    if "build" in parts:
        major, minor = torch.cuda.get_device_capability()
        found["build"] = build(f"{major}.{minor}")
        print("build:", found["build"], flush=True)
        if not found["build"]["ok"]:
            return 1
    for part, run in (("test", test), ("sanitize", sanitize)):
        if part in parts:
            found[part] = run()
            print(f"{part}:", json.dumps(found[part], indent=1), flush=True)
    if "time" in parts:
        found["timings"] = timings(arguments.rehearse, arguments.rounds, arguments.minutes)
    file = "gpu-" + re.sub(r"\W+", "-", name.lower()).strip("-") + ".json"
    path = arguments.json or (None if arguments.rehearse else ROOT / "benchmarks/results" / file)
    if path is not None:
        path.write_text(json.dumps(found, indent=1) + "\n")
        print("written to", path)
    if "timings" in found:
        print(table(found["timings"]))
    return 0 if all(found.get(part, {"ok": True})["ok"] for part in PARTS[:3]) else 1


if __name__ == "__main__":
    sys.exit(main())
