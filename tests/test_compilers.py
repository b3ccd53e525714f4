"""Every compiler that is here: csrc is C++17, warns of nothing, and computes the same bits."""

import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from torch.utils.cpp_extension import include_paths

ROOT = Path(__file__).resolve().parent.parent
ALL = sorted([*ROOT.glob("csrc/*.cpp"), *ROOT.glob("csrc/[cg]*/*.cpp")])
LOOPS = [ROOT / "tests/portable/loops.cpp", *ROOT.glob("csrc/cpu/*.cpp")]
for name in ("direct", "parallel", "step"):  # these include torch
    LOOPS.remove(ROOT / f"csrc/cpu/{name}.cpp")
# As in lrfused/extension/compile.py.
FLAGS = ["-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", f"-I{ROOT}"]
TUNED = ["-mtune=haswell"] if platform.machine() == "x86_64" else []
STRICT = ["-std=c++17", "-Wall", "-Wextra", "-pedantic", "-Werror"]
NAMES = [
    "g++",
    *(f"g++-{n}" for n in range(10, 20)),
    "clang++",
    *(f"clang++-{n}" for n in range(14, 30)),
]
COMPILERS = [name for name in NAMES if shutil.which(name)]
CLANG = shutil.which("clang++") or next((c for c in reversed(COMPILERS) if "clang" in c), None)
CROSS, QEMU = shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64-static")


def run(*command, folder=ROOT, **environment):
    """Run a command; return what it printed."""
    done = subprocess.run(
        [*map(str, command)], cwd=folder, env={**os.environ, **environment}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout[-6000:]}"
    return done.stdout


@pytest.fixture(scope="session")
def expected(tmp_path_factory):
    """Return the lines that the first compiler's loops print."""
    if not COMPILERS:
        pytest.skip("no g++ and no clang++ is here")
    path = tmp_path_factory.mktemp("loops") / "loops"
    run(COMPILERS[0], *FLAGS, *TUNED, *STRICT, *LOOPS, "-o", path)
    lines = run(path).splitlines()
    assert len(lines) == len(set(lines)) > 400
    return lines


@pytest.mark.parametrize("source", ALL, ids=lambda path: path.name)
def test_it_is_cpp17(source):
    """Torch before 2.12 compiles extensions as C++17."""
    if not COMPILERS:
        pytest.skip("no g++ and no clang++ is here")
    torch = [f"-isystem{path}" for path in [*include_paths(), sysconfig.get_path("include")]]
    run(COMPILERS[0], *STRICT, "-fsyntax-only", *torch, "-DTORCH_EXTENSION_NAME=_C", source)


@pytest.mark.parametrize("compiler", COMPILERS[1:])
def test_compilers_agree(compiler, expected, tmp_path):
    run(compiler, *FLAGS, *TUNED, *STRICT, *LOOPS, "-o", tmp_path / "loops")
    assert run(tmp_path / "loops").splitlines() == expected


def test_aarch64_agrees(expected, tmp_path):
    if not (CROSS and QEMU):
        pytest.skip("no aarch64-linux-gnu-g++ and qemu-aarch64-static are here")
    run(CROSS, "-static", *FLAGS, *STRICT, *LOOPS, "-o", tmp_path / "loops")
    assert run(QEMU, tmp_path / "loops").splitlines() == expected


@pytest.mark.skipif(platform.machine() != "x86_64", reason="it looks at x86's registers")
@pytest.mark.parametrize(
    ("isa", "register", "elements"),
    [("avx2", "ymm", ["f", "d", "NS_8bfloat16E", "NS_7float16E"]),
     ("avx512", "zmm", ["NS_8bfloat16E", "NS_7float16E"]),
     ("avx512bf16", "zmm", ["NS_8bfloat16E"])],
)  # fmt: skip
@pytest.mark.parametrize("compiler", COMPILERS)
def test_the_loops_are_vectors(compiler, isa, register, elements, tmp_path):
    path = tmp_path / "loops.s"
    run(compiler, *FLAGS, *TUNED, "-std=c++17", "-S", ROOT / f"csrc/cpu/{isa}.cpp", "-o", path)
    parts = re.split(r"^(_Z\w+):", path.read_text(), flags=re.MULTILINE)
    updates = {
        name: text.split(".cfi_endproc")[0]
        for name, text in zip(parts[1::2], parts[2::2], strict=True)
        if re.search(rf"{len(isa)}{isa}4LoopI\w+E6updateI", name)
    }
    found = {re.search(r"4LoopI(\w+?)E6updateI", name)[1] for name in updates}
    assert found == set(elements)
    # Those of 16 bits are there also without a scale.
    assert len(updates) == sum(20 if len(e) > 1 else 10 for e in elements) * 2
    for name, text in updates.items():
        element = "pd" if "LoopIdE" in name else "ps"
        fused = re.search(r"ELb(\d)EEEvPv", name)[1] == "1"
        instruction = r"vfn?m(add|sub)\d+" if fused else r"v(add|sub)"
        assert re.search(rf"{instruction}{element}\s.*%{register}", text), name
        assert ("vcvtne2ps2bf16" in text) == (isa == "avx512bf16"), name
        if not fused:
            assert not re.search(r"vfn?m(add|sub)\d+", text), name


def test_clang_builds_the_extension(tmp_path):
    if CLANG is None:
        pytest.skip("no clang++ is here")
    shutil.copytree(ROOT / "csrc", tmp_path / "csrc")
    built = shutil.ignore_patterns("*.so", "*.so.json", "__pycache__")
    shutil.copytree(ROOT / "lrfused", tmp_path / "lrfused", ignore=built)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    here = {
        "CXX": CLANG, "LRFUSED_REQUIRE_EXTENSION": "1", "LRFUSED_CUDA": "0", "MAX_JOBS": "2",
        "PYTHONPATH": str(tmp_path),
    }  # fmt: skip
    printed = run(sys.executable, "setup.py", "build_ext", "--inplace", folder=tmp_path, **here)
    assert not re.search(r"csrc/\S+: warning: ", printed)
    told = run(
        sys.executable, "-m", "lrfused", "verify", "--quick", "--backend", "compiled",
        folder=tmp_path, **here,
    )  # fmt: skip
    assert "all equal, bit for bit" in told
    (extension,) = tmp_path.glob("lrfused/_C*.so")
    needed = run("readelf", "-d", extension)
    assert "NEEDED" in needed
    assert "omp" not in needed  # torch's own runtime is enough
