"""List backends and devices, and which backend runs on which device."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import torch

from .. import __version__, backends
from ..extension import build_record
from .arguments import CommandError

_KINDS = ("cpu", "cuda", "xpu", "mps")


def devices() -> dict[torch.device, str]:
    """Return the devices that torch sees, each with its name."""
    found = {torch.device("cpu"): platform.processor() or platform.machine()}
    for kind in _KINDS[1:]:
        module = getattr(torch, kind)
        if not module.is_available():
            continue
        for i in range(module.device_count()):
            name = module.get_device_name(i) if hasattr(module, "get_device_name") else kind
            rocm = f" (ROCm {torch.version.hip})" if torch.version.hip else ""
            found[torch.device(kind, i)] = f"{name}{rocm}"
    return found


def self_tests() -> list[tuple[str, torch.device, Any]]:
    """Return the verdict of each backend on each device that it has kernels for.

    Runs the self-tests that this process has not run yet.
    """
    from ..backends import trust  # here: importing lrfused imports no backend

    torch.optim.SGD([torch.empty(0)])  # a process's first optimizer imports torch's compiler
    ready = [backends.choose(name) for name, why in backends.available().items() if why is None]
    try:
        return [
            (backend.name, device, trust.verdict(backend, device))
            for backend in ready
            for device in devices()
            if trust.is_tested(backend, device)
        ]
    except ValueError as error:  # the environment variable's value
        raise CommandError(str(error)) from error


def report() -> tuple[list[tuple[str, str, str]], list[tuple[str, str, str]]]:
    """Return rows of backends (name, state, use) and of devices (device, name, backend chosen)."""
    why = backends.available()
    tests = self_tests()
    chosen = []
    for device, name in devices().items():
        refused = ("failed", "not run")
        failed = [b for b, tested, v in tests if tested == device and v.state in refused]
        chosen.append((str(device), name, backends.preferred(device.type, failed)))
    return [(r.name, why[r.name] or "ready", r.used_for) for r in backends.records()], chosen


def extension() -> str:
    """Return which extension is used, or why none is."""
    try:
        from ..extension.load import _C
    except ImportError as error:
        return f"none: {error}"
    installed = Path(_C.__file__).parent == build_record.PATH.parent
    return f"{_C.__file__}, {'installed with lrfused' if installed else 'compiled on demand'}"


def run() -> int:
    """Print the report."""
    try:
        used = extension()
    except ValueError as error:  # the environment variable's value
        raise CommandError(str(error)) from error
    first, second = report()
    print(f"lrfused {__version__}, torch {torch.__version__}, Python {platform.python_version()}")
    print(f"extension: {used}")
    _table(("backend", "state", "for"), first)
    _table(("device", "name", 'backend="auto" is'), second)
    third = [(name, str(device), str(verdict)) for name, device, verdict in self_tests()]
    third.append(("reference", "every device", "not run: it is made of torch's operations"))
    _table(("backend", "device", "self-test"), third)
    return 0


def _table(head: tuple[str, str, str], rows: list[tuple[str, str, str]]) -> None:
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:  # lrfused[cli] brings it; without it, lines of text
        for row in rows:
            print("  ".join(f"{title}: {cell}" for title, cell in zip(head, row, strict=True)))
        return
    table = Table(*head)
    for row in rows:
        table.add_row(*row)
    Console().print(table)
