"""The CUDA sources compiled for GPUs, which needs none: what the compiler made of them."""

import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from nvcc import MARKS, nvcc, ptx

ARCHITECTURES = ("80", "90", "100", "120")

pytestmark = MARKS

# Elements of a vector, by the number that kernels know a table's tensors by (csrc/cuda/table.h).
WIDTHS = {"0": 4, "1": 2, "2": 8, "3": 8}
WHOLE, REMAINDER, MIXED = ("6", "7"), "10", "-1"
KINDS = [*WIDTHS, *WHOLE, REMAINDER, MIXED]
# With the table in an argument of either size, or resident; observe.
KERNELS = {"step": 3 * len(KINDS) + 1, "norm": 3}


def kernel_of(mangled):
    """Return ("observe", "") or ("norm", ""), or ("step", what all of the table's tensors are)."""
    for name in ("observe", "norm"):
        if re.search(rf"\d{name}", mangled.split("step_cu")[-1].split("norm_cu")[-1]):
            return name, ""
    only = re.search(r"ELi(n?\d+)E", mangled).group(1)
    return "step", only.replace("n", "-")


@pytest.fixture(scope="module", params=KERNELS)
def fatbin(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("cuda") / "kernels.fatbin"
    targets = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in ARCHITECTURES]
    options = ("-fatbin", "--threads=2", "-Xptxas=-v", *targets, "-o", str(path))
    return request.param, path, nvcc(request.param, *options)


def test_no_kernel_spills_a_register(fatbin):
    name, _, report = fatbin
    assert report.count("Compiling entry function") == KERNELS[name] * len(ARCHITECTURES)
    frames = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+)", report)
    assert frames
    assert all(numbers == ("0", "0", "0") for numbers in frames), report


def accesses(kind, mixed):
    """Return the loads and stores of 16 bytes, then those of 8, in a kernel of one kind.

    With momentum and without it, once with all vectors that are under way, once with one, and once
    with one whose gradient lies across two.
    """
    vectors = 2 if mixed else 4
    grads = vectors + 1
    if kind in WIDTHS:  # three loads and two stores, or two and one
        return 3 * vectors + grads, 3 * vectors, 0, 0
    if kind in WHOLE:  # fp32: the master, a buffer, or not; 16 bits: the parameter is stored
        return 2 * (3 * vectors + grads), 6 * vectors, 2 * grads, 4 * vectors
    # fp32: a buffer, or not; 16 bits: parameter and remainder
    return 2 * (vectors + grads), 2 * vectors, 8 * vectors + 2 * grads, 8 * vectors


def test_accesses_are_wide_and_local_memory_is_unused(fatbin):
    triton = pytest.importorskip("triton")
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    name, path, _ = fatbin
    done = subprocess.run([tool, "-sass", path], capture_output=True, text=True, check=True)
    functions = done.stdout.split("Function : ")[1:]
    assert len(functions) == KERNELS[name] * len(ARCHITECTURES)
    for text in functions:
        kernel = kernel_of(text.split()[0])
        found = re.findall(r"^\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+ )?([A-Z][A-Z0-9_.]*)", text, re.M)
        names = Counter(each.split(".")[0] for each in found)
        assert not names["LDL"], kernel
        assert not names["STL"], kernel

        def count(what, size, found=found):
            return sum(each.startswith(what) and f".{size}" in each for each in found)

        if kernel[0] == "norm":
            # fp32: 8 rows; bf16 and fp16, rounded as they are or not: 16; fp64: 4 of two loads each
            assert count("LDG", 128) == 8 + 2 * 4
            assert count("LDG", 64) >= 4 * 16
        if kernel[0] != "step":
            continue
        kinds = KINDS[:-1] if kernel[1] == MIXED else [kernel[1]]
        expected = [accesses(kind, kernel[1] == MIXED) for kind in kinds]
        wide_loads, wide_stores, loads, stores = (sum(each) for each in zip(*expected, strict=True))
        assert count("LD", 128) >= wide_loads, kernel  # the table too
        assert count("ST", 128) == wide_stores, kernel
        assert count("LD", 64) >= loads, kernel
        assert count("ST", 64) >= stores, kernel  # the commit too
        if kernel[1] not in ("1", MIXED):
            assert not names["DFMA"], f"{kernel}: torch's schedulers do not fuse"


def test_products_and_sums_are_fused_where_the_contract_says(shared):
    entries = ptx("step", shared).read_text().split(".entry ")[1:]
    assert len(entries) == KERNELS["step"]
    for text in entries:
        kernel, only = kernel_of(text.split("(")[0])
        single, double = text.count("fma.rn.f32"), text.count("fma.rn.f64")
        assert ".ftz" not in text, only
        assert "mad.f" not in text, only
        # Four with momentum and two without, at each place an element is updated: vectors in the
        # loops' bodies, and a head and a tail.
        vectors = 2 if only == MIXED else 4
        fused = {kind: (2 + vectors * width) * (4 + 2) for kind, width in WIDTHS.items()}
        fused.update(dict.fromkeys((*WHOLE, REMAINDER), 2 * fused["0"]))  # gradients of two dtypes
        if kernel == "observe":
            want = 0, 0
        elif only == MIXED:
            want = sum(fused.values()) - fused["1"], fused["1"]
        else:
            want = (0, fused[only]) if only == "1" else (fused[only], 0)
        assert (single, double) == want, (kernel, only)


def test_the_norm_fuses_what_is_exact_and_adds_up_by_no_atomic(shared):
    entries = ptx("norm", shared).read_text().split(".entry ")[1:]
    assert len(entries) == KERNELS["norm"]
    for text in entries:
        # A square of up to 32 bits is exact in fp64. Rows under way, and those at the end, of four
        # elements of a lane; read at once, or one by one.
        single, half = (8 + 4) + (8 + 4), (16 + 4) + (8 + 4)
        assert text.count("fma.rn.f64") == 4 * (single + 4 * half)
        assert text.count("mul.rn.f64") >= 4 * 2 * (4 + 4)  # fp64's is not
        assert ".ftz" not in text
        assert "mad.f" not in text
        assert set(re.findall(r"\b(?:atom|red)\.\S+", text)) == {"atom.global.inc.u32"}
