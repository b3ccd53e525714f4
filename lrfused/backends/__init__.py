"""Where the step runs: a backend is a module with `Program` and `step`.

One that may be imported where it cannot be used has `unavailable`, which returns why, or None;
one that can be used on some devices of its type only has `unavailable_on(device)` too.

None imports another, but for the reference, which every one of them falls back on.
"""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Collection, Sequence
from types import ModuleType

from torch import device as Device

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


def name_of(backend: ModuleType) -> str:
    """Return the name under which a backend is chosen."""
    return backend.__name__.rpartition(".")[2]


def available() -> dict[str, str | None]:
    """Return every backend's name with None, or the reason why it cannot be used."""
    loaded = {name: _load(name) for name in NAMES}
    return {name: module if isinstance(module, str) else None for name, module in loaded.items()}


def preferred(device_type: str, without: Collection[str] = ()) -> str:
    """Return the name of the fastest backend there is for parameters on such a device.

    `without` names those that must not be used.
    """
    names = [name for name in _PREFERRED.get(device_type, _ELSEWHERE) if name not in without]
    return next(name for name in names if not isinstance(_load(name), str))


def trusted(name: str, devices: Sequence[Device]) -> ModuleType:
    """Return the backend of this name, which has passed its self-test on these devices.

    "auto" is the fastest that has, for the first device; one warning tells of each that has not.

    Raises what `choose` raises, and RuntimeError for one asked for by name that has not passed.
    """
    from . import trust  # here: importing lrfused imports no backend

    failed: dict[str, str] = {}
    while True:
        backend = choose(name, devices[0].type if devices else "cpu", failed)
        why = trust.failure(backend, devices)
        if why is None:
            break
        if name != "auto":
            raise RuntimeError(why)
        failed[name_of(backend)] = why
    for why in failed.values():
        _warn_once(f"{why}; the {name_of(backend)} backend is used instead")
    return backend


def choose(name: str, device_type: str = "cpu", without: Collection[str] = ()) -> ModuleType:
    """Return the backend of this name; "auto" is the fastest there is for such a device.

    "compiled" means the one that was compiled for the device: on a GPU, "cuda". `without` names
    those that "auto" must not be.

    Raises ValueError for an unknown name, RuntimeError for one that cannot be used here.
    """
    if name == "compiled" and device_type == "cuda":
        name = "cuda"
    if name == "auto":
        name = preferred(device_type, without)
        if not without:
            _warn_of_slower(device_type, name)
    if name not in NAMES:
        raise ValueError(f"backend must be 'auto' or one of {NAMES}, got {name!r}")
    module = _load(name)
    if isinstance(module, str):
        raise RuntimeError(f"backend={name!r} cannot be used here: {module}")
    return module


@functools.cache
def _warn_of_slower(device_type: str, chosen: str) -> None:
    """Warn where no kernels are made for a device, or where those for it did not compile."""
    from ..extension import build_record

    names = _PREFERRED.get(device_type, _ELSEWHERE)
    reasons = [f"{name}: {_load(name)}" for name in names[: names.index(chosen)]]
    why = "; ".join(reasons)
    if chosen == "reference" or (chosen, device_type) == ("compiled", "cuda"):
        message = (
            f"lrfused has no kernels for {device_type} here ({why}); torch's own operations "
            "compute the same bits at the speed of torch's for-loop"
        )
    elif device_type == "cuda" and (build_record.read() or {}).get("kernels_error"):
        message = f"lrfused's first choice did not compile ({why}); {chosen} is used instead"
    else:
        return
    warnings.warn(message, stacklevel=7)


@functools.cache
def _warn_once(message: str) -> None:
    warnings.warn(f"lrfused: {message}", stacklevel=6)
