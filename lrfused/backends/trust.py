"""A backend is trusted on a device where its self-test has passed, once per process."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import device as Device

from . import self_test
from .base import Backend
from .device import transfer

VARIABLE = "LRFUSED_SELF_TEST"


@dataclass(frozen=True)
class Verdict:
    """The result of a self-test: "passed", "failed", "left out" or "not run", and why."""

    state: str
    why: str = ""  # it failed, or was not run
    seconds: float = 0.0

    def __str__(self) -> str:
        if self.state == "left out":
            return f"left out ({VARIABLE}=0)"
        took = f" in {1000 * self.seconds:.1f} ms" if self.seconds else ""
        return f"{self.state}{took}{self.why and f': {self.why}'}"


_verdicts: dict[tuple[str, Device], Verdict] = {}
_lock = threading.Lock()


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()  # the one that a forked process inherits may be held for ever


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def is_tested(backend: Backend, device: Device) -> bool:
    """Return whether a backend has kernels of its own for a device; the reference has none."""
    return backend.Program.runs_on(device)


def failure(backend: Backend, devices: Iterable[Device]) -> str | None:
    """Return why a backend must not be used on the first of these devices where it failed."""
    for device in devices:
        if is_tested(backend, device):
            found = verdict(backend, device)
            if found.state == "failed":
                return (
                    f"the self-test of the {backend.name} backend on {device} failed: {found.why}"
                )
            if found.state == "not run":
                return f"the {backend.name} backend cannot be used here: {found.why}"
    return None


def verdict(backend: Backend, device: Device) -> Verdict:
    """Return the result of a backend's self-test on a device, which is run if it was not yet.

    Raises ValueError for another value of the environment variable, RuntimeError in a capture of
    a CUDA graph.
    """
    key = backend.name, device
    found = _verdicts.get(key)
    if found is None:
        with _lock:
            found = _verdicts.get(key)
            if found is None:
                found = _verdicts[key] = _judge(backend, device)
    return found


def _judge(backend: Backend, device: Device) -> Verdict:
    refused = backend.unavailable_on(device)
    if refused is not None:
        return Verdict("not run", refused)
    setting = os.environ.get(VARIABLE, "1")
    if setting == "0":
        return Verdict("left out")
    if setting != "1":
        raise ValueError(f"{VARIABLE} must be 0 or 1, got {setting!r}")
    if transfer.capturing(device):
        raise RuntimeError(
            f"the {backend.name} backend was not yet tested on {device}, and cannot be while a "
            f"CUDA graph is captured: construct the optimizer before the capture, or set "
            f"{VARIABLE}=0"
        )
    begin = time.perf_counter()
    # A new thread has none of the modes of its caller's: default device, inference mode,
    # FakeTensorMode, autocast, profiler, stream.
    with ThreadPoolExecutor(1) as thread:
        difference = thread.submit(_run, backend, device).result()
    seconds = time.perf_counter() - begin
    return Verdict("failed" if difference else "passed", difference, seconds)


def _run(backend: Backend, device: Device) -> str:
    """Return the first difference, or the error that ended the test."""
    try:
        with _current(device):
            return self_test.run(backend, device)
    except torch.OutOfMemoryError:
        raise  # of the moment, and no verdict
    except Exception as error:
        message, *_ = str(error).split("\n")
        return f"{type(error).__name__}: {message}"


def _current(device: Device) -> contextlib.AbstractContextManager[Any]:
    """Make a GPU the current one; a new thread begins on the first."""
    if device.type == "cpu":
        return contextlib.nullcontext()
    return torch.get_device_module(device).device(device)
