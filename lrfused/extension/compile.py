"""Compile lrfused._C for the torch that is imported, from csrc in the current folder.

setup.py runs this file by itself: it imports nothing of lrfused.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import platform
import re
import runpy
import select
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import setuptools
import torch
from torch.utils.cpp_extension import BuildExtension, CppExtension

_HERE = Path(__file__).resolve().parent
_TOOLCHAIN = runpy.run_path(str(_HERE / "toolchain.py"))
_ARCHITECTURES = runpy.run_path(str(_HERE.parent / "backends" / "cuda" / "architectures.py"))

FLAGS = [
    "-O3",
    "-ffp-contract=off",  # a product and a sum are fused only where the source says fma
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fvisibility=hidden",
    "-Wall",
    "-g0",
]
if platform.machine() in ("x86_64", "AMD64"):
    FLAGS.append("-mtune=haswell")  # gcc's usual tuning, before 11, splits unaligned wide loads

NVCC_FLAGS = ["-std=c++17", "-O3", "-fmad=false", "--threads=4"]
NVCC_FLAGS += ["-Xcompiler", "-fPIC,-fvisibility=hidden"]
ROOMS = ["csrc", "csrc/cpu", "csrc/gpu"]
EMULATED = "csrc/cuda/emulated.cpp"  # the kernels' code run on the CPU, for tests without a GPU

LINK = []
if os.environ.get("LRFUSED_SANITIZE") == "1":
    SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    FLAGS += [*SANITIZE, "-O1", "-fno-omit-frame-pointer"]
    LINK += SANITIZE


# Beside the extension: the torch that it is for, and why a part of it is not there.
RECORD = f"_C{EXTENSION_SUFFIXES[0]}.json"
REQUIRED = os.environ.get("LRFUSED_REQUIRE_EXTENSION") == "1"


class OptionalBuild(BuildExtension):
    """Build the extension, or record the compiler's first error and go on without it."""

    extensions: list[Any]

    def run(self) -> None:
        """Build it, and write the build record beside it."""
        self.force = True  # what was built for another torch is as new as the sources
        self.record: dict[str, str | None] = {
            "torch": str(torch.__version__),
            "error": None,
            "kernels_error": None,
        }
        os.environ["LC_ALL"] = "C"  # first_error reads English
        with copied_output() as self.printed:
            try:
                super().run()
            except Exception as error:
                self._left_out(
                    "error", error, "the compiled extension could not be built; the reference "
                    "backend will be used: the same bits, at the speed of torch's for-loop",
                )  # fmt: skip
        for folder in (self.build_lib, ".") if self.inplace else (self.build_lib,):
            path = os.path.join(folder, "lrfused", RECORD)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(f"{path}.part", "w") as file:
                json.dump(self.record, file)
            os.replace(f"{path}.part", path)

    def build_extension(self, ext: Any) -> None:
        """Compile with the CUDA kernels, or with their emulation where they do not compile."""
        if ext.compiler:
            before = ext.extra_compile_args, ext.extra_link_args
            ext.extra_compile_args = [*ext.extra_compile_args, "-DLRFUSED_CUDA"]
            try:
                self._add_kernels(ext)
                return super().build_extension(ext)
            except Exception as error:
                self._left_out("kernels_error", error, "the CUDA kernels could not be built")
                ext.extra_compile_args, ext.extra_link_args = before
                ext.extra_objects = []
        ext.sources.append(EMULATED)
        return super().build_extension(ext)

    def _left_out(self, part: str, error: Exception, what: str) -> None:
        if REQUIRED:
            raise error
        printed = f"{self.printed()}\n{getattr(error, 'stderr', None) or ''}"
        self.record[part] = first_error(printed) or str(error)
        warnings.warn(f"lrfused: {what}. {self.record[part]}", stacklevel=2)

    def _add_kernels(self, ext: Any) -> None:
        """Compile the kernels by a short call of our own: they include no torch header."""
        folder = os.path.join(self.build_temp, "cuda")
        os.makedirs(folder, exist_ok=True)
        chosen, flags = architectures(ext.compiler)
        command = [ext.compiler, *NVCC_FLAGS, *flags, "-c"]
        objects = []
        for source in sorted(glob.glob("csrc/cuda/*.cu")):
            objects.append(os.path.join(folder, os.path.basename(source) + ".o"))
            subprocess.run([*command, source, "-o", objects[-1]], check=True)
        ext.extra_compile_args.append(f"-DLRFUSED_ARCHITECTURES={','.join(chosen)}")
        home = os.path.dirname(os.path.dirname(os.path.realpath(ext.compiler)))
        ext.extra_objects = objects
        ext.extra_link_args += [f"-L{os.path.join(home, name)}" for name in ("lib64", "lib")]
        ext.extra_link_args += ["-lcudart_static", "-ldl", "-lrt", "-lpthread"]

    def get_outputs(self) -> list[str]:
        """Return the paths of what was built."""
        built = [path for path in super().get_outputs() if os.path.exists(path)]
        return [*built, os.path.join(self.build_lib, "lrfused", RECORD)]

    def copy_extensions_to_source(self) -> None:
        """Copy what was built into the source tree."""
        built = [e for e in self.extensions if os.path.exists(self._built_path(e))]
        self.extensions = built
        super().copy_extensions_to_source()

    def _built_path(self, extension: Any) -> str:
        return os.path.join(self.build_lib, self.get_ext_filename(extension.name))


@contextlib.contextmanager
def copied_output() -> Iterator[Callable[[], str]]:
    """Yield a function that returns what was printed since its last call, by compilers too."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(1), os.dup(2)]
    out, into = os.pipe()

    copying = threading.Lock()

    def copy() -> None:
        piece = b" "
        while piece:
            select.select([out], [], [])
            with copying:
                piece = os.read(out, 65536)
                log.write(piece)
            os.write(saved[0], piece)

    def printed() -> str:
        while True:  # the thread may not have copied all of it yet
            with copying:
                if not select.select([out], [], [], 0)[0]:
                    return output.read()
            time.sleep(0.001)

    with tempfile.NamedTemporaryFile(buffering=0) as log:
        thread = threading.Thread(target=copy)
        thread.start()
        os.dup2(into, 1)
        os.dup2(into, 2)
        os.close(into)
        try:
            with open(log.name, errors="replace") as output:
                yield printed
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(saved[0], 1)
            os.dup2(saved[1], 2)
            thread.join()
            for number in (out, *saved):
                os.close(number)


ERROR = re.compile(
    r"(^|[:\s])(fatal )?error( #?\w+)?: |^nvcc fatal|undefined reference|cannot find -l"
    r"|: not found$|: No such file or directory$|: command not found$"
)


NO_ERROR = re.compile(r"\b(note|warning): ")


def first_error(output: str) -> str:
    """Return the first line of a build's output that a compiler or linker calls an error."""
    lines = (line.strip() for line in output.splitlines())
    errors = (line for line in lines if ERROR.search(line) and not NO_ERROR.search(line))
    return next(errors, "").replace(os.getcwd() + os.sep, "")[:500]


def architectures(compiler: str) -> tuple[list[str], list[str]]:
    """Return the architectures to compile for, and nvcc's arguments for them."""
    command = [compiler, "--list-gpu-arch"]
    known = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    listed = os.environ.get("TORCH_CUDA_ARCH_LIST", "")
    if listed.strip() == "native":  # as torch does
        there = range(torch.cuda.device_count())
        listed = " ".join("{}.{}".format(*torch.cuda.get_device_capability(i)) for i in there)
    chosen = _ARCHITECTURES["chosen"](listed, known)
    return chosen, _ARCHITECTURES["flags"](chosen)


def joined() -> set[str]:
    """Return the sources that csrc/joined.cpp includes, which are not compiled by themselves."""
    if not os.path.exists("csrc/joined.cpp"):
        return set()
    with open("csrc/joined.cpp") as file:
        return {f"csrc/{name}" for name in re.findall(r'#include "(.+\.cpp)"', file.read())}


def extension() -> Any:
    """Return lrfused._C as setuptools wants it."""
    sources = {path for room in ROOMS for path in glob.glob(f"{room}/*.cpp")}
    headers = sorted(glob.glob("csrc/**/*.h", recursive=True) + glob.glob("csrc/cpu/*.inc"))
    extension = CppExtension(
        "lrfused._C",
        sorted(sources - joined()),
        depends=[*sorted(sources), *headers, *glob.glob("csrc/cuda/*.cu")],
        # The version is there so that another torch is another command, which ninja runs anew.
        extra_compile_args=[*FLAGS, f"-DLRFUSED_TORCH={torch.__version__.partition('+')[0]}"],
        extra_link_args=list(LINK),
    )
    extension.compiler = _TOOLCHAIN["nvcc"]()
    return extension


def build_into(folder: str) -> None:
    """Compile outside of an installation: make `folder`/lrfused/_C* and the build record."""
    settings = {"name": "lrfused", "ext_modules": [extension()]}
    command = OptionalBuild(setuptools.Distribution(settings))
    command.build_lib, command.build_temp = folder, os.path.join(folder, "temporary")
    command.ensure_finalized()
    command.run()
