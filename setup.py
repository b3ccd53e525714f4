"""Build lrfused._C; without a compiler, install what runs on the reference backend."""

import glob
import os
import runpy
import shutil
import subprocess
import sys
import warnings

import torch
from setuptools import setup
from torch.utils.cpp_extension import BuildExtension, CppExtension

FLAGS = [
    "-O3",
    "-fopenmp",  # without it at::parallel_for runs on one thread and does not say so
    "-ffp-contract=off",  # a product and a sum are fused only where the source says fma
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fvisibility=hidden",
    "-Wall",
    "-g0",
]


NVCC_FLAGS = ["-std=c++17", "-O3", "-fmad=false", "--threads=4"]
NVCC_FLAGS += ["-Xcompiler", "-fPIC,-fvisibility=hidden"]
EMULATED = "csrc/cuda/emulated.cpp"  # the kernels' code run on the CPU, for tests without a GPU

LINK = ["-fopenmp"]
if os.environ.get("LRFUSED_SANITIZE") == "1":
    SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    FLAGS += [*SANITIZE, "-O1", "-fno-omit-frame-pointer"]
    LINK += SANITIZE


class OptionalBuild(BuildExtension):
    """Build the extension, or say once why not and install without it."""

    def run(self):
        try:
            super().run()
        except Exception as error:
            if os.environ.get("LRFUSED_REQUIRE_EXTENSION") == "1":
                raise
            warnings.warn(
                f"lrfused: the compiled extension could not be built ({error}); the reference "
                "backend will be used: the same bits, at the speed of torch's for-loop",
                stacklevel=1,
            )

    def build_extension(self, ext):
        if ext.compiler:
            try:
                self._add_kernels(ext)
            except (OSError, ValueError, subprocess.CalledProcessError) as error:
                if os.environ.get("LRFUSED_REQUIRE_EXTENSION") == "1":
                    raise
                warnings.warn(f"lrfused: built without CUDA kernels ({error})", stacklevel=1)
                ext.extra_compile_args.remove("-DLRFUSED_CUDA")
                ext.sources.append(EMULATED)
        super().build_extension(ext)

    def _add_kernels(self, ext):
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

    def get_outputs(self):
        return [path for path in super().get_outputs() if os.path.exists(path)]

    def copy_extensions_to_source(self):
        built = [e for e in self.extensions if os.path.exists(self._built_path(e))]
        self.extensions = built
        super().copy_extensions_to_source()

    def _built_path(self, extension):
        return os.path.join(self.build_lib, self.get_ext_filename(extension.name))


def nvcc():
    """Return the CUDA compiler for a torch that can use what it makes, or None."""
    if torch.version.cuda is None:
        return None
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    found = [shutil.which("nvcc", path=os.path.join(home, "bin")) for home in homes if home]
    return next((path for path in [*found, shutil.which("nvcc")] if path), None)


def architectures(compiler):
    """Return the architectures to compile for, and nvcc's arguments for them."""
    own = runpy.run_path("lrfused/backends/cuda/architectures.py")
    command = [compiler, "--list-gpu-arch"]
    known = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    chosen = own["chosen"](os.environ.get("TORCH_CUDA_ARCH_LIST"), known)
    return chosen, own["flags"](chosen)


def extensions():
    if sys.platform == "win32":
        return []
    sources = sorted(glob.glob("csrc/*.cpp") + glob.glob("csrc/cpu/*.cpp"))
    headers = sorted(glob.glob("csrc/**/*.h", recursive=True) + glob.glob("csrc/cpu/*.inc"))
    compiler = nvcc()
    sources += [] if compiler else [EMULATED]
    extension = CppExtension(
        "lrfused._C",
        sources,
        depends=[*headers, *glob.glob("csrc/cuda/*.cu")],
        extra_compile_args=[*FLAGS, *(["-DLRFUSED_CUDA"] if compiler else [])],
        extra_link_args=list(LINK),
    )
    extension.compiler = compiler
    return [extension]


setup(ext_modules=extensions(), cmdclass={"build_ext": OptionalBuild})
