"""The CUDA sources, and nvcc, which compiles them where there is no GPU too."""

import shutil
import subprocess
from pathlib import Path

import pytest
from filelock import FileLock

SOURCES = Path(__file__).resolve().parents[1] / "csrc" / "cuda"
NVCC = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
FLAGS = ["-std=c++17", "-O3", "-fmad=false"]  # of lrfused/extension/compile.py

MARKS = [
    pytest.mark.skipif(NVCC is None, reason="there is no nvcc here"),
    pytest.mark.skipif(not SOURCES.exists(), reason="the sources are not here"),
]


def nvcc(name, *arguments):
    """Compile csrc/cuda/<name>.cu; return what nvcc reports, which must be no warning."""
    source = str(SOURCES / f"{name}.cu")
    done = subprocess.run(
        [NVCC, *FLAGS, *arguments, source], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "warning" not in done.stderr, done.stderr[-4000:]
    return done.stderr


def ptx(name, folder):
    """Return the path of csrc/cuda/<name>.cu as PTX, compiled once for all who give a folder."""
    path = folder / f"{name}.ptx"
    with FileLock(f"{path}.lock"):
        if not path.exists():
            nvcc(name, "-ptx", "-arch=compute_90", "-o", f"{path}.part")
            Path(f"{path}.part").rename(path)
    return path
