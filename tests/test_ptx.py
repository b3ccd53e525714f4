"""The compiled kernels, run on the CPU as the PTX that nvcc makes of them, and broken on purpose.

tests/ptx/ reads PTX and runs it. Every launch is compared bit for bit with csrc's headers compiled
for the host, each access is checked, and accesses of different threads must be in an order that
PTX guarantees. A failure names the seed; `machine PTX SEED 1 KERNEL` runs that case alone.
"""

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from filelock import FileLock
from nvcc import MARKS, SOURCES, ptx
from torch.utils.cpp_extension import include_paths

MACHINE = Path(__file__).resolve().parent / "ptx"
ROOT = SOURCES.parents[1]
CXX = os.environ.get("CXX", "c++")
FLAGS = ["-std=c++20", "-O1", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-frounding-math"]

pytestmark = [
    *MARKS,
    pytest.mark.skipif(shutil.which(CXX) is None, reason="there is no C++ compiler here"),
]

SEED, CASES = 1, 60
# Instructions that no launch can reach. For a NaN a plateau's comparison is compiled apart, where
# it is never better.
UNREACHED = {"observe": 4}


@pytest.fixture(scope="session")
def machine(shared):
    """Build the program that runs kernels, once."""
    path = shared / "machine"
    with FileLock(f"{path}.lock"):
        if not path.exists():
            includes = [f"-I{ROOT}", *(f"-I{folder}" for folder in include_paths())]
            sources = [*sorted(MACHINE.glob("*.cpp")), ROOT / "csrc" / "pack.cpp"]

            def compile_one(source):
                made = str(shared / f"machine-{source.stem}.o")
                run(CXX, *FLAGS, *includes, "-c", str(source), "-o", made)
                return made

            with ThreadPoolExecutor(2) as pool:
                objects = list(pool.map(compile_one, sources))
            run(CXX, *objects, "-o", f"{path}.part")
            Path(f"{path}.part").rename(path)
    return path


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.mark.parametrize("source", ["step", "norm"])
def test_all_kernels_equal_the_hosts_headers_everywhere(machine, shared, source):
    path = ptx(source, shared)
    lines = run(str(machine), str(path), str(SEED), str(CASES)).splitlines()
    assert len(lines) == path.read_text().count(".entry ")
    for line in lines:
        name, told = line.split(": ", 1)
        assert f"{CASES} cases are equal" in told, line
        unreached = int(re.search(r"(\d+) instructions unreached", told).group(1))
        assert unreached <= UNREACHED.get(name, 0), line


STEP, STEP_BF16, STEP_FP16 = (rf"4stepI\w*Inline\w*ELi{kind}E" for kind in (0, 2, 3))
STEP_RESIDENT, OBSERVE = r"4stepI\w*Resident\w*ELi0E", r"7observe"
NORM, NORM_RESIDENT = r"4normI\w*Inline", r"4normI\w*Resident"

WRONG = "differs"
RACE = "race"
OUTSIDE = "out of bounds"


class Mutation(NamedTuple):
    """One instruction replaced; the occurrences tried are places[::every]."""

    what: str
    kernel: str  # of its mangled name
    pattern: str
    by: str
    fault: str
    every: int = 1


SPLIT = r"mul.rn.f32 %product, \2, \3;\n\tadd.rn.f32 \1, %product, \4;"
FUSED = r"fma\.rn\.f32\s+(%f\d+), (%f\d+), (%f\d+), (%f\d+);"
LONE = "setp.eq.u32 %lone, %tid.x, 0;\n\t@%lone bar.sync 0;"
TICKET = r"(atom\.global\.inc\.u32\s+%r\d+, \[%rd\d+\]), %r\d+;"

MUTATIONS = [
    # Roundings.
    Mutation("fma cut", STEP, r"fma\.rn\.f32", "fma.rz.f32", WRONG, 9),
    Mutation("fma split", STEP, FUSED, SPLIT, WRONG, 9),
    Mutation("product cut", STEP, r"mul\.rn\.f32", "mul.rz.f32", WRONG, 9),
    Mutation("rate cut", STEP, r"(add|mul)\.rn\.f64", r"\1.rz.f64", WRONG, 3),
    Mutation("bf16 cut", STEP_BF16, r"cvt\.rn\.bf16x2", "cvt.rz.bf16x2", WRONG, 37),
    Mutation("fp16 cut", STEP_FP16, r"cvt\.rn\.f16", "cvt.rz.f16", WRONG, 41),
    Mutation("square cut", NORM, r"fma\.rn\.f64", "fma.rz.f64", WRONG, 61),
    Mutation("sum cut", NORM, r"add\.rn\.f64", "add.rz.f64", WRONG, 19),
    Mutation("plateau cut", OBSERVE, r"mul\.rn\.f64", "mul.rz.f64", WRONG, 3),
    # Order. Each single fence and barrier is missed.
    Mutation("no fence", STEP, r"membar\.gl;", "", RACE),
    Mutation("no fence", STEP_RESIDENT, r"membar\.gl;", "", RACE),
    Mutation("no fence", NORM, r"membar\.gl;", "", RACE),
    Mutation("no fence", NORM_RESIDENT, r"membar\.gl;", "", RACE),
    Mutation("a block's fence", STEP, r"membar\.gl;", "membar.cta;", RACE),
    Mutation("a block's fence", NORM, r"membar\.gl;", "membar.cta;", RACE),
    Mutation("no barrier", STEP, r"bar\.sync\s+0;", "", RACE),
    Mutation("no barrier", NORM, r"bar\.sync\s+0;", "", RACE),
    Mutation("no warp's barrier", NORM, r"bar\.warp\.sync\s+-1;", "", RACE),
    Mutation("a barrier for one", STEP, r"bar\.sync\s+0;", LONE, f"deadlock|{RACE}"),
    Mutation("a ticket for each", STEP, TICKET, r"\1, 0;", RACE),
    Mutation("an endless ticket", STEP, TICKET, r"\1, -1;", WRONG),
    Mutation("a count for each", NORM, TICKET, r"\1, 0;", RACE),
    # Indices and addresses.
    Mutation("next vector stored", STEP, r"(st\.global\.v4\.u32 \[%rd\d+)\]", r"\1+16]",
             f"{RACE}|{OUTSIDE}|{WRONG}"),
    Mutation("half a vector on", STEP, r"(st\.global\.v4\.u32 \[%rd\d+)\]", r"\1+8]", "misaligned"),
    Mutation("far vector read", STEP, r"(ld\.global\.v4\.u32 \{[^}]*\}, \[%rd\d+)\]", r"\1+32768]",
             f"{OUTSIDE}|{WRONG}|{RACE}", 5),
    Mutation("element before", NORM, r"(ld\.global\.u64 %rd\d+, \[%rd\d+)\]", r"\1+-8]",
             f"{OUTSIDE}|{WRONG}", 17),
    Mutation("next rate", STEP, r"(st\.global\.f64\s+\[%rd\d+)\]", r"\1+8]",
             f"{RACE}|{OUTSIDE}|{WRONG}"),
    Mutation("another lane", NORM, r"shfl\.sync\.down", "shfl.sync.idx", WRONG, 7),
    Mutation("a segment written", STEP, r"ld\.global\.u64\s+(%rd\d+), (\[%rd\d+\+8\]);",
             r"st.global.u64 \2, \1;", "read-only"),
    Mutation("shared for global", STEP, r"ld\.shared\.u8", "ld.global.u8", "another space's"),
]  # fmt: skip


def entry_of(text, kernel):
    """Return what precedes the kernels, and the first of those that are called so."""
    head, *entries = re.split(r"^(?=\.entry )", text, flags=re.M)
    return head, next(e for e in entries if re.search(kernel, e.partition("(")[0]))


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: f"{m.what}-{m.kernel}")
def test_a_broken_kernel_is_found_out(machine, shared, tmp_path, mutation):
    source = "norm" if "norm" in mutation.kernel else "step"
    head, entry = entry_of(ptx(source, shared).read_text(), mutation.kernel)
    places = list(re.finditer(mutation.pattern, entry))
    assert places
    for place in places[:: mutation.every]:
        broken = entry[: place.start()] + place.expand(mutation.by) + entry[place.end() :]
        path = tmp_path / "broken.ptx"
        path.write_text(head + broken)
        command = [machine, path, str(SEED), str(CASES)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        line = 1 + entry.count("\n", 0, place.start())
        assert done.returncode == 1, f"line {line} of the kernel: {done.stdout}{done.stderr}"
        assert re.search(mutation.fault, done.stdout), f"line {line} of the kernel: {done.stdout}"
