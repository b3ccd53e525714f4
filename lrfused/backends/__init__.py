"""Where the step runs: a backend is a module with `Program` and `step`.

One that may be imported where it cannot be used has `unavailable`, which says why, or None.

None imports another, but for the reference, which every one of them falls back on.
"""

from __future__ import annotations

import functools
import importlib
import warnings
from types import ModuleType

NAMES = ("compiled", "cuda", "triton", "reference")
_PREFERRED = {"cpu": ("compiled", "reference"), "cuda": ("cuda", "triton", "compiled", "reference")}
_ELSEWHERE = ("triton", "compiled", "reference")


@functools.cache
def _load(name: str) -> ModuleType | str:
    try:
        module = importlib.import_module(f".{name}", __name__)
    except ImportError as error:
        return str(error)
    why: str | None = getattr(module, "unavailable", lambda: None)()
    return why or module


def available() -> dict[str, str | None]:
    """Return every backend's name with None, or the reason why it cannot be used."""
    loaded = {name: _load(name) for name in NAMES}
    return {name: module if isinstance(module, str) else None for name, module in loaded.items()}


def preferred(device_type: str) -> str:
    """Return the name of the fastest backend there is for parameters on such a device."""
    names = _PREFERRED.get(device_type, _ELSEWHERE)
    return next(name for name in names if not isinstance(_load(name), str))


def choose(name: str, device_type: str = "cpu") -> ModuleType:
    """Return the backend of this name; "auto" is the fastest there is for such a device.

    "compiled" means the one that was compiled for the device: on a GPU, "cuda".

    Raises ValueError for an unknown name, RuntimeError for one that cannot be used here.
    """
    if name == "auto":
        name = preferred(device_type)
        if name == "reference":
            _say_once(str(_load("compiled")))
    if name == "compiled" and device_type == "cuda":
        name = "cuda"
    if name not in NAMES:
        raise ValueError(f"backend must be 'auto' or one of {NAMES}, got {name!r}")
    module = _load(name)
    if isinstance(module, str):
        raise RuntimeError(f"backend={name!r} cannot be used here: {module}")
    return module


@functools.cache
def _say_once(why: str) -> None:
    warnings.warn(
        f"lrfused has no compiled backend here ({why}); the reference backend computes the same "
        "bits at the speed of torch's for-loop",
        stacklevel=4,
    )
