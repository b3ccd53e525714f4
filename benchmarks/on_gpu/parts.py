"""Build, test and sanitize: each fills its part of the results and saves them."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .commands import call, errors, failures, matching, reports

# Those with tests that are marked "gpu": to collect all others takes longer than to run these.
TESTS = (
    "tests/test_backend_contract.py", "tests/test_complex.py", "tests/test_cycles.py",
    "tests/test_fuse_failures.py", "tests/test_gpu.py", "tests/test_gpu_scaling.py",
    "tests/test_gpu_self_test.py", "tests/test_group_dicts.py", "tests/test_groups.py",
    "tests/test_layouts.py", "tests/test_refusals.py", "tests/test_shared_memory.py",
    "tests/test_sparse.py", "tests/test_sparse_around.py", "tests/test_swaps.py",
    "tests/test_tensor_rates.py", "tests/test_update.py",
)  # fmt: skip
TOOLS = ("memcheck", "racecheck", "synccheck")
SANITIZED = str(Path(__file__).with_name("sanitized.py"))
BACKENDS = "import json; from lrfused import backends; print(json.dumps(backends.available()))"


@dataclass(frozen=True)
class Part:
    """The inputs of a part: where its results go, and until when."""

    found: dict[str, Any]
    save: Callable[[], None]
    deadline: float  # in time.monotonic()
    rehearse: bool

    @property
    def left(self) -> float:
        """Return the seconds that are left."""
        return self.deadline - time.monotonic()


def build(part: Part, capability: tuple[int, int]) -> bool:
    """Build in place, for this GPU alone; return whether the CUDA backend is usable then."""
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    more = {
        "TORCH_CUDA_ARCH_LIST": ".".join(map(str, capability)),
        "LRFUSED_REQUIRE_EXTENSION": "1",
    }
    part.found.update(command=command, environment=more)
    if not part.rehearse:
        done = call(*command, limit=part.left, **more)
        part.found["seconds"] = done.seconds
        if not done.ok:
            part.found["errors"] = errors(done.output)
            return False
    asked = call(sys.executable, "-c", BACKENDS, limit=part.left)
    told = matching(asked.output, "{")
    if not (asked.ok and told):
        part.found["errors"] = errors(asked.output)
        return False
    part.found["backends"] = json.loads(told[-1])
    why = part.found["backends"]["cuda"]
    if why is not None:
        part.found["errors"] = why
    return why is None


def test(part: Part) -> bool:
    """Run the tests that need a GPU; in a rehearsal only collect them."""
    command = [
        sys.executable, "-m", "pytest", "-m", "gpu", "--no-header", "-p", "no:cacheprovider",
        "-W", "default", "--tb=short", "-rfEs", "--maxfail=20", *TESTS,
    ]  # fmt: skip
    if part.rehearse:
        command.append("--collect-only")
    part.found["command"] = command
    done = call(*command, limit=part.left)
    said = "".join(done.output.strip().splitlines()[-1:])
    part.found.update(
        seconds=done.seconds, said=said, skipped=matching(done.output, "SKIPPED ")
    )  # fmt: skip
    if not done.ok:
        part.found["errors"] = failures(done.output)
    return done.ok and re.search(r"\b[1-9]\d*(/\d+)? (passed|tests collected)", said) is not None


def sanitize(part: Part) -> bool:
    """Run small cases under each of compute-sanitizer's tools; in a rehearsal without them."""
    tool = sanitizer()
    if tool is None and not part.rehearse:
        part.found["errors"] = "there is no compute-sanitizer here"
        return False
    ok = True
    for count, name in enumerate(TOOLS[:1] if part.rehearse else TOOLS):
        command = [sys.executable, SANITIZED]
        if not part.rehearse:
            command = [str(tool), "--tool", name, "--error-exitcode", "7", *command]
        # With torch's cache of memory, an access outside of a tensor would hit another one.
        done = call(
            *command, limit=part.left / (len(TOOLS) - count), PYTORCH_NO_CUDA_MEMORY_CACHING="1"
        )
        fine = done.ok and bool(matching(done.output, "sanitized:"))
        part.found[name] = {"ok": fine, "seconds": done.seconds, "command": command}
        if not fine:
            part.found[name]["errors"] = reports(done.output)
        ok &= fine
        part.save()
    return ok


def sanitizer() -> str | None:
    """Return the path of compute-sanitizer, which is often beside nvcc and not on PATH."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    folders = [os.path.join(home, "bin") for home in homes if home]
    found = [shutil.which("compute-sanitizer", path=path) for path in (None, *folders)]
    return next((path for path in found if path), None)
