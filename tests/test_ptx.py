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

ENTRY = r"^(?:\.visible )?\.entry "
SEED, CASES = 1, 60


@pytest.fixture(scope="session")
def machine(shared):
    """Build the program that runs kernels, once."""
    path = shared / "machine"
    with FileLock(f"{path}.lock"):
        if not path.exists():
            includes = [f"-I{ROOT}", *(f"-I{folder}" for folder in include_paths())]
            sources = [*sorted(MACHINE.glob("*.cpp")), ROOT / "csrc/gpu/pack.cpp"]

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


PARTS = {"step": ("Inline", "Resident", "observe"), "norm": ("Inline", "Resident")}


@pytest.mark.parametrize(
    ("source", "part"), [(source, part) for source in PARTS for part in PARTS[source]]
)
def test_kernels_equal_the_hosts_headers_and_all_of_them_runs(machine, shared, source, part):
    path = ptx(source, shared)
    names = re.findall(rf"{ENTRY}(\w+)\(", path.read_text(), re.M)
    assert all(sum(each in name for each in PARTS[source]) == 1 for name in names)
    lines = run(str(machine), str(path), str(SEED), str(CASES), part).splitlines()
    assert len(lines) == sum(part in name for name in names) > 0
    for line in lines:
        assert line.endswith(f": {CASES} cases are equal, 0 instructions unreached"), line


class Mutation(NamedTuple):
    """A pattern replaced in a kernel: places[::every] one by one, or all at once."""

    what: str
    kernel: str  # in its mangled name
    pattern: str
    by: str
    fault: str
    every: int | None = 1  # None: all at once


STEP, STEP_BF16, STEP_FP16 = (rf"4stepI\w*Inline\w*ELi{kind}E" for kind in (0, 2, 3))
STEP_RESIDENT, OBSERVE = r"4stepI\w*Resident\w*ELi0E", r"7observe"
NORM, NORM_RESIDENT = r"4normI\w*Inline", r"4normI\w*Resident"

DIFFERS, RACE, OUTSIDE = "differs", "race", "out of bounds"
ANY = f"{DIFFERS}|{RACE}|{OUTSIDE}"

FMA = r"fma\.rn\.f32\s+(%f\d+), (%f\d+), (%f\d+), (%f\d+);"
SPLIT_FMA = r"mul.rn.f32 %product, \2, \3;\n\tadd.rn.f32 \1, %product, \4;"
# What fma has computed is narrowed. Elsewhere in float16's kernel numbers are narrow already.
HALF = r"(fma\.rn\.f32[^;]*;\s+// begin inline asm\s+)cvt\.rn\.f16"
INCREMENT = r"(atom\.global\.inc\.u32\s+%r\d+, \[%rd\d+\]), %r\d+;"
VECTOR_STORE = r"(st\.global\.v4\.u32 \[%rd\d+)\]"
VECTOR_LOAD = r"(ld\.global\.v4\.u32 \{[^}]*\}, \[%rd\d+)\]"
SHUFFLE = r"shfl\.sync\.down\.b32\s+(%r\d+)\|%p\d+, (%r\d+),[^;]*;"
BARRIER = r"bar\.sync\s+0;"
LONE_BARRIER = "setp.eq.u32 %lone, %tid.x, 0;\n\t@%lone bar.sync 0;"

ROUNDINGS = [
    Mutation("fma cut", STEP, r"fma\.rn\.f32", "fma.rz.f32", DIFFERS, 9),
    Mutation("fma split", STEP, FMA, SPLIT_FMA, DIFFERS, 9),
    Mutation("product cut", STEP, r"mul\.rn\.f32", "mul.rz.f32", DIFFERS, 9),
    Mutation("map cut", STEP, r"(add|mul)\.rn\.f64", r"\1.rz.f64", DIFFERS, 3),
    Mutation("bf16 cut", STEP_BF16, r"cvt\.rn\.bf16x2", "cvt.rz.bf16x2", DIFFERS, 37),
    Mutation("fp16 cut", STEP_FP16, HALF, r"\1cvt.rz.f16", DIFFERS, 13),
    # One rounding among those of a sum, or of a plateau's threshold, seldom changes what comes out.
    Mutation("square cut", NORM, r"fma\.rn\.f64", "fma.rz.f64", DIFFERS, None),
    Mutation("sum cut", NORM, r"add\.rn\.f64", "add.rz.f64", DIFFERS, None),
    Mutation("plateau cut", OBSERVE, r"mul\.rn\.f64", "mul.rz.f64", DIFFERS, None),
]
# Even one fence less, or one barrier, is a race: what orders two accesses is checked, and not only
# what came out in the order that they had. Results alone would hardly show it.
ORDER = [
    *(Mutation("no fence", kernel, r"membar\.gl;", "", RACE)
      for kernel in (STEP, STEP_RESIDENT, NORM, NORM_RESIDENT)),
    *(Mutation("fence of a block", kernel, r"membar\.gl;", "membar.cta;", RACE)
      for kernel in (STEP, NORM)),
    *(Mutation("no barrier", kernel, BARRIER, "", RACE) for kernel in (STEP, NORM)),
    Mutation("no barrier of a warp", NORM, r"bar\.warp\.sync\s+-1;", "", RACE),
    Mutation("barrier for one thread", STEP, r"\tret;", LONE_BARRIER + r"\n\tret;", "deadlock"),
    Mutation("barrier for one thread first", STEP, BARRIER, LONE_BARRIER, f"two places|{RACE}"),
    Mutation("loop without a step", STEP, r"(add\.s64\s+(%rd\d+), \2), 32;", r"\1, 0;",
             "does not end", None),
    Mutation("ticket that all draw", STEP, INCREMENT, r"\1, 0;", ANY),
    Mutation("ticket that nobody draws", STEP, INCREMENT, r"\1, -1;", DIFFERS),
    Mutation("count that all reach", NORM, INCREMENT, r"\1, 0;", ANY),
]  # fmt: skip
ADDRESSES = [
    Mutation("next vector stored", STEP, VECTOR_STORE, r"\1+16]", ANY),
    Mutation("half a vector further", STEP, VECTOR_STORE, r"\1+8]", "misaligned"),
    Mutation("far vector loaded", STEP, VECTOR_LOAD, r"\1+1099511627776]", OUTSIDE),
    Mutation("next vector loaded", STEP, VECTOR_LOAD, r"\1+16]", ANY),
    Mutation("element before loaded", NORM, r"(ld\.global\.u64 %rd\d+, \[%rd\d+)\]", r"\1+-8]",
             ANY, 17),
    Mutation("next cell stored", STEP, r"(st\.global\.f64\s+\[%rd\d+)\]", r"\1+8]", ANY),
    Mutation("own lane shuffled", NORM, SHUFFLE, r"mov.b32 \1, \2;", DIFFERS, 7),
    Mutation("segments stored to", STEP, r"ld\.global\.u64\s+(%rd\d+), (\[%rd\d+\+8\]);",
             r"st.global.u64 \2, \1;", "read-only"),
    Mutation("shared memory as global", STEP, r"ld\.shared\.u8", "ld.global.u8", "another space"),
]  # fmt: skip


def entry_of(text, kernel):
    """Return what precedes the kernels, and the first of those that are called so."""
    head, *entries = re.split(rf"(?={ENTRY})", text, flags=re.M)
    return head, next(e for e in entries if re.search(kernel, e.partition("(")[0]))


def mutants_of(entry, mutation):
    """Yield broken kernels, each with the lines that are other ones."""
    places = list(re.finditer(mutation.pattern, entry))
    assert places
    if mutation.every is None:
        yield "all", re.sub(mutation.pattern, mutation.by, entry)
        return
    for place in places[:: mutation.every]:
        broken = entry[: place.start()] + place.expand(mutation.by) + entry[place.end() :]
        yield 1 + entry.count("\n", 0, place.start()), broken


@pytest.mark.parametrize(
    "mutation", [*ROUNDINGS, *ORDER, *ADDRESSES], ids=lambda m: f"{m.what}: {m.kernel}"
)
def test_a_broken_kernel_is_found_out(machine, shared, tmp_path, mutation):
    source = "norm" if "norm" in mutation.kernel else "step"
    head, entry = entry_of(ptx(source, shared).read_text(), mutation.kernel)
    path = tmp_path / "broken.ptx"
    for line, broken in mutants_of(entry, mutation):
        path.write_text(head + broken)
        command = [machine, path, str(SEED), str(CASES)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        told = f"line {line} of the kernel: {done.stdout}{done.stderr}"
        assert done.returncode == 1, told
        assert re.search(mutation.fault, done.stdout), told
