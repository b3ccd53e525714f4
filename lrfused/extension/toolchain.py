"""The compilers that a build calls, and their versions.

compile.py runs this file by itself: it imports nothing of lrfused.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess

import torch


def cxx() -> list[str] | None:
    """Return the command of the C++ compiler that torch calls, or None if it is not there."""
    command = shlex.split(os.environ.get("CXX", "")) or ["c++"]
    return command if shutil.which(command[0]) else None


def nvcc() -> str | None:
    """Return the CUDA compiler for a torch that can use what it makes, or None."""
    if torch.version.cuda is None or os.environ.get("LRFUSED_CUDA") == "0":
        return None
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    found = [shutil.which("nvcc", path=os.path.join(home, "bin")) for home in homes if home]
    return next((path for path in [*found, shutil.which("nvcc")] if path), None)


def version(command: list[str]) -> str:
    """Return all that a compiler prints about its version."""
    asked = [*command, "--version"]
    return subprocess.run(asked, capture_output=True, text=True, errors="replace").stdout
