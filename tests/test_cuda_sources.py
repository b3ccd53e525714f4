"""The CUDA sources compiled for GPUs, which needs none: what the compiler made of them."""

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "csrc" / "cuda" / "step.cu"
NVCC = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
FLAGS = ["-std=c++17", "-O3", "-fmad=false"]  # setup.py's
ARCHITECTURES = ("80", "90", "100")

pytestmark = [
    pytest.mark.skipif(NVCC is None, reason="there is no nvcc here"),
    pytest.mark.skipif(not SOURCE.exists(), reason="the sources are not here"),
]

# Elements of 16 bytes, by the number that the kernels know a dtype by (csrc/step.h).
WIDTHS = {"0": 4, "1": 2, "2": 8, "3": 8}
MIXED = "-1"


def nvcc(*arguments):
    done = subprocess.run(
        [NVCC, *FLAGS, *arguments, str(SOURCE)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stderr


def kernel_of(mangled):
    """Return ("observe", "") or ("step", the one dtype of the table)."""
    if "observe" in mangled:
        return "observe", ""
    only = re.search(r"ELi(n?\d)E", mangled).group(1)
    return "step", only.replace("n", "-")


@pytest.fixture(scope="module")
def fatbin(tmp_path_factory):
    path = tmp_path_factory.mktemp("cuda") / "step.fatbin"
    targets = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in ARCHITECTURES]
    return path, nvcc("-fatbin", "--threads=2", "-Xptxas=-v", *targets, "-o", str(path))


def test_no_kernel_spills_a_register(fatbin):
    report = fatbin[1]
    kernels = 11  # for one dtype each or for all, with the table inline or resident; observe
    assert report.count("Compiling entry function") == kernels * len(ARCHITECTURES)
    frames = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+)", report)
    assert frames
    assert all(numbers == ("0", "0", "0") for numbers in frames), report


def test_accesses_are_wide_and_local_memory_is_unused(fatbin):
    triton = pytest.importorskip("triton")
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    done = subprocess.run([tool, "-sass", fatbin[0]], capture_output=True, text=True, check=True)
    functions = done.stdout.split("Function : ")[1:]
    assert len(functions) == 11 * len(ARCHITECTURES)
    for text in functions:
        kernel = kernel_of(text.split()[0])
        found = re.findall(r"^\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+ )?([A-Z][A-Z0-9_.]*)", text, re.M)
        names = Counter(name.split(".")[0] for name in found)
        assert not names["LDL"], kernel
        assert not names["STL"], kernel
        if kernel[0] == "observe":
            continue
        # With momentum three loads and two stores a vector, without two and one; two vectors at a
        # time, one, and one with a gradient that lies across two. All dtypes: one at a time.
        loads, stores = (4 * 12, 4 * 6) if kernel[1] == MIXED else (22, 12)
        wide = [name for name in found if ".128" in name]
        assert sum(name.startswith("LD") for name in wide) >= loads, kernel  # the table too
        assert sum(name.startswith("ST") for name in wide) == stores, kernel
        if kernel[1] not in ("1", MIXED):
            assert not names["DFMA"], f"{kernel}: torch's schedulers do not fuse"


def test_products_and_sums_are_fused_where_the_contract_says(tmp_path):
    path = tmp_path / "step.ptx"
    nvcc("-ptx", "-arch=compute_90", "-o", str(path))
    entries = path.read_text().split(".entry ")[1:]
    assert len(entries) == 11
    for text in entries:
        kernel, only = kernel_of(text.split("(")[0])
        single, double = text.count("fma.rn.f32"), text.count("fma.rn.f64")
        assert ".ftz" not in text, only
        assert "mad.f" not in text, only
        # Four with momentum and two without, at each place an element is updated.
        at_once = {MIXED: 2}.get(only, 4)  # vectors in the loops' bodies
        fused = {d: (2 + at_once * width) * (4 + 2) for d, width in WIDTHS.items()}
        if kernel == "observe":
            want = 0, 0
        elif only == MIXED:
            want = fused["0"] + fused["2"] + fused["3"], fused["1"]
        else:
            want = (0, fused[only]) if only == "1" else (fused[only], 0)
        assert (single, double) == want, (kernel, only)
