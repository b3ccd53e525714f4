"""The devices of the kernels: GPUs, or the CPU where they are emulated for tests."""

from __future__ import annotations

import os

import torch
from torch import device as Device

from ...extension.load import _C, kernels_error
from . import architectures

_VARIABLE = "LRFUSED_EMULATE_CUDA"
EMULATED = not _C.on_gpu()
TYPE = "cpu" if EMULATED else "cuda"


def unavailable() -> str | None:
    """Return why the kernels cannot be launched here; None if they can."""
    if EMULATED:
        if os.environ.get(_VARIABLE) == "1":
            return None
        why = kernels_error or "that takes a torch with CUDA, and nvcc"
        return f"lrfused was built without CUDA: {why}"
    if torch.version.hip is not None or not torch.cuda.is_available():
        return "torch sees no CUDA device here"
    refusals = [unavailable_on(Device("cuda", i)) for i in range(torch.cuda.device_count())]
    return None if None in refusals else refusals[0]


def unavailable_on(device: Device) -> str | None:
    """Return why the kernels cannot run on a device of theirs, or None if they can."""
    if EMULATED:
        return None
    try:
        name, major, minor = _C.describe(device.index)
    except RuntimeError as error:
        return str(error)
    return architectures.uncovered(_C.architectures(), f"{device}, {name}", (major, minor))


def runs_on(device: Device) -> bool:
    """Return whether kernels can be launched on a device."""
    return device.type == TYPE


def device_of(index: int) -> Device:
    """Return the device that csrc/gpu/state.h means by an index."""
    return Device("cpu") if EMULATED else Device("cuda", index)


def current_stream(device: Device) -> int:
    """Return the handle of the stream that kernels are launched on."""
    if EMULATED:
        return 0
    stream: int = torch._C._cuda_getCurrentRawStream(device.index)
    return stream
