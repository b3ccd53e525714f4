"""Where the step runs: the register of backends, and the choice among them.

base.py is the contract of a backend. None imports the step of another, except the reference's, to
which every one leaves the tensors that it cannot take.
"""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import device as Device

if TYPE_CHECKING:  # importing lrfused imports no backend
    from .base import Backend

OTHERS = "*"  # device types that are not named


@dataclass(frozen=True)
class Record:
    """An entry in the register of backends.

    name: by which the backend is chosen. module: imported when it is first asked for, and has it
    as `backend`. devices: the types of devices on which "auto" may choose it; it comes before
    those that have only `OTHERS`. used_for: a few words for `lrfused info`.
    """

    name: str
    module: str
    devices: tuple[str, ...]
    used_for: str


RECORDS = (
    Record("compiled", f"{__name__}.compiled", ("cpu", OTHERS), "CPU"),
    Record(
        "cuda",
        f"{__name__}.cuda",
        ("cuda",),
        "CUDA; with LRFUSED_EMULATE_CUDA=1 the CPU, for tests",
    ),
    Record(
        "triton",
        f"{__name__}.triton",
        ("cuda", "xpu"),
        "CUDA, ROCm and XPU; with TRITON_INTERPRET=1 the CPU, for tests",
    ),
    Record(
        "reference",
        f"{__name__}.reference",
        (OTHERS,),
        "every device, at the speed of torch's for-loop",
    ),
)
_registered: list[Record] = []


def records() -> tuple[Record, ...]:
    """Return the records of all backends, those that were registered last."""
    return (*RECORDS, *_registered)


def names() -> tuple[str, ...]:
    """Return the names of all backends."""
    return tuple(record.name for record in records())


def register(record: Record) -> None:
    """Add a backend. On the device types it names, "auto" tries it before those that are there.

    Raises ValueError for a name that is taken.
    """
    taken = ("auto", *names())
    if record.name in taken:
        raise ValueError(f"a backend's name must be none of {taken}, got {record.name!r}")
    _registered.append(record)


def preferences(device_type: str) -> tuple[str, ...]:
    """Return the names that "auto" stands for on such a device, the best first."""
    newest_first = (*reversed(_registered), *RECORDS)
    named = [r.name for r in newest_first if device_type in r.devices]
    others = [r.name for r in newest_first if OTHERS in r.devices]
    return tuple(dict.fromkeys([*named, *others]))


@functools.cache
def _import(record: Record) -> Backend | str:
    try:
        backend: Backend = importlib.import_module(record.module).backend
    except ImportError as error:
        return str(error)
    return backend.unavailable() or backend


def _load(name: str) -> Backend | str:
    """Return a backend, or the reason why it cannot be used."""
    return _import(next(record for record in records() if record.name == name))


def available() -> dict[str, str | None]:
    """Return every backend's name with None, or the reason why it cannot be used."""
    loaded = {name: _load(name) for name in names()}
    return {name: found if isinstance(found, str) else None for name, found in loaded.items()}


def preferred(device_type: str, without: Collection[str] = ()) -> str:
    """Return the name of the fastest backend there is for parameters on such a device.

    `without` names those that must not be used.
    """
    wanted = [name for name in preferences(device_type) if name not in without]
    return next(name for name in wanted if not isinstance(_load(name), str))


def trusted(name: str, devices: Sequence[Device]) -> Backend:
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
        failed[backend.name] = why
    for why in failed.values():
        _warn_once(f"{why}; the {backend.name} backend is used instead")
    return backend


def choose(name: str, device_type: str = "cpu", without: Collection[str] = ()) -> Backend:
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
    if name not in names():
        raise ValueError(f"backend must be 'auto' or one of {names()}, got {name!r}")
    found = _load(name)
    if isinstance(found, str):
        raise RuntimeError(f"backend={name!r} cannot be used here: {found}")
    return found


@functools.cache
def _warn_of_slower(device_type: str, chosen: str) -> None:
    """Warn where no kernels are made for a device, or where those for it did not compile."""
    from ..extension.optional import kernels_error

    better = preferences(device_type)
    reasons = [f"{name}: {_load(name)}" for name in better[: better.index(chosen)]]
    why = "; ".join(reasons)
    if chosen == "reference" or (chosen, device_type) == ("compiled", "cuda"):
        message = (
            f"lrfused has no kernels for {device_type} here ({why}); torch's own operations "
            "compute the same bits at the speed of torch's for-loop"
        )
    elif device_type == "cuda" and kernels_error():
        message = f"lrfused's first choice did not compile ({why}); {chosen} is used instead"
    else:
        return
    warnings.warn(message, stacklevel=7)


@functools.cache
def _warn_once(message: str) -> None:
    warnings.warn(f"lrfused: {message}", stacklevel=6)
