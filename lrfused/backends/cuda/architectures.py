"""The compute capabilities that the kernels are compiled for, and the GPUs that those run on.

compile.py runs this file by itself: it imports nothing of lrfused.

An architecture is written as in TORCH_CUDA_ARCH_LIST: "9.0", or "9.0a" with what only that very
capability has; with "+PTX" also as PTX, which a driver compiles for newer ones.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

USUAL = ("8.0", "9.0", "10.0", "12.0")
_OLDEST = (7, 0)  # kernels' arguments may not be longer than 4,096 bytes on older ones
_NAMES = {  # torch's
    "Kepler": "3.5", "Maxwell": "5.0 5.2+PTX", "Pascal": "6.0 6.1+PTX", "Volta+Tegra": "7.2",
    "Volta": "7.0+PTX", "Turing": "7.5+PTX", "Ampere+Tegra": "8.7", "Ampere": "8.0 8.6+PTX",
    "Ada": "8.9+PTX", "Hopper": "9.0+PTX", "Blackwell+Tegra": "11.0",
    "Blackwell": "10.0 10.3 12.0 12.1+PTX",
}  # fmt: skip
_FORM = re.compile(r"(\d+)\.(\d)(a?)(\+PTX)?")


def chosen(listed: str | None, known: Collection[str]) -> list[str]:
    """Return the architectures to compile for.

    `listed` is TORCH_CUDA_ARCH_LIST; without it they are the usual ones that the compiler knows,
    the last of them as PTX too. `known` is what `nvcc --list-gpu-arch` prints. Capabilities below
    7.0, which no kernel here runs on, are left out.

    Raises ValueError for what is not followed, and if nothing is left.
    """
    if not listed or not listed.strip():
        usual = [arch for arch in USUAL if f"compute_{arch.replace('.', '')}" in known]
        if not usual:
            raise ValueError(f"nvcc compiles for none of {', '.join(USUAL)}")
        return [*usual[:-1], f"{usual[-1]}+PTX"]
    archs = []
    for word in re.split(r"[\s;,]+", listed.strip()):
        archs += _NAMES.get(word, word).split()
    for arch in archs:
        form = _FORM.fullmatch(arch)
        if form is None:
            raise ValueError(
                f"TORCH_CUDA_ARCH_LIST has {arch!r}: an architecture must be a compute capability "
                f"such as '9.0', '9.0a' or '9.0+PTX', or one of {', '.join(_NAMES)}"
            )
        if _capability(arch) >= _OLDEST and f"compute_{form[1]}{form[2]}" not in known:
            raise ValueError(f"TORCH_CUDA_ARCH_LIST has {arch!r}, which this nvcc does not know")
    left = [arch for arch in dict.fromkeys(archs) if _capability(arch) >= _OLDEST]
    if not left:
        raise ValueError(f"TORCH_CUDA_ARCH_LIST is {listed!r}: the kernels need 7.0 or newer")
    return left


def flags(archs: Sequence[str]) -> list[str]:
    """Return nvcc's arguments for these architectures."""
    arguments = []
    for arch in archs:
        number = arch.removesuffix("+PTX").replace(".", "")
        codes = [f"sm_{number}", f"compute_{number}"] if "+" in arch else [f"sm_{number}"]
        arguments += [f"-gencode=arch=compute_{number},code={code}" for code in codes]
    return arguments


def covers(archs: Sequence[str], capability: tuple[int, int]) -> bool:
    """Return whether a GPU of this compute capability runs what was compiled."""
    for arch in archs:
        major, minor = own = _capability(arch)
        if arch.removesuffix("+PTX").endswith("a"):
            fits = capability == own
        else:
            fits = capability[0] == major and capability[1] >= minor
            fits |= arch.endswith("+PTX") and capability >= own
        if fits:
            return True
    return False


def uncovered(compiled: str, device: str, capability: tuple[int, int]) -> str | None:
    """Return the reason why a GPU cannot run what was compiled, or None if it can.

    `compiled` is the architectures with commas between them; `device` names the GPU.
    """
    if covers(compiled.split(","), capability):
        return None
    number = "{}.{}".format(*capability)
    return (
        f"{device}, has compute capability {number}, and the kernels were compiled for "
        f"{compiled.replace(',', ' ')}: build lrfused with TORCH_CUDA_ARCH_LIST='{number}'"
    )


def _capability(arch: str) -> tuple[int, int]:
    form = _FORM.fullmatch(arch)
    assert form is not None
    return int(form[1]), int(form[2])
