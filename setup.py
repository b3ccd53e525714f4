"""Build lrfused._C; without a compiler, install what runs on the reference backend."""

import glob
import os
import sys
import warnings

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

    def get_outputs(self):
        return [path for path in super().get_outputs() if os.path.exists(path)]

    def copy_extensions_to_source(self):
        built = [e for e in self.extensions if os.path.exists(self._built_path(e))]
        self.extensions = built
        super().copy_extensions_to_source()

    def _built_path(self, extension):
        return os.path.join(self.build_lib, self.get_ext_filename(extension.name))


def extensions():
    if sys.platform == "win32":
        return []
    sources = sorted(glob.glob("csrc/*.cpp") + glob.glob("csrc/cpu/*.cpp"))
    headers = sorted(glob.glob("csrc/**/*.h", recursive=True) + glob.glob("csrc/cpu/*.inc"))
    return [
        CppExtension(
            "lrfused._C",
            sources,
            depends=headers,
            extra_compile_args=FLAGS,
            extra_link_args=LINK,
        )
    ]


setup(ext_modules=extensions(), cmdclass={"build_ext": OptionalBuild})
