"""Where the step runs: a backend is a module with `Program` and `step`.

None imports another, but for the reference, which every one of them falls back on.
"""

from __future__ import annotations

import functools
import importlib
import warnings
from types import ModuleType

NAMES = ("compiled", "reference")  # in order of preference


@functools.cache
def _load(name: str) -> ModuleType | str:
    try:
        return importlib.import_module(f".{name}", __name__)
    except ImportError as error:
        return str(error)


def available() -> dict[str, str | None]:
    """Return every backend's name with None, or the reason why it cannot be used."""
    loaded = {name: _load(name) for name in NAMES}
    return {name: module if isinstance(module, str) else None for name, module in loaded.items()}


def choose(name: str) -> ModuleType:
    """Return the backend of this name; "auto" is the fastest there is.

    Raises ValueError for an unknown name, RuntimeError for one that cannot be used here.
    """
    if name == "auto":
        chosen = next(n for n, why in available().items() if why is None)
        if chosen == "reference":
            _say_once(str(_load("compiled")))
        name = chosen
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
