"""Launching a kernel: on its device, without fusion, or in Triton's interpreter."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
import triton
from torch import device as Device

INTERPRETED = bool(triton.knobs.runtime.interpret)

_TYPES = ("cpu",) if INTERPRETED else ("cuda", "xpu")
_TILE = 2048  # elements that a program updates
_WARPS = 4


def rows_of_a_tile(chunks: int, cols: int, tile: int = _TILE) -> int:
    """Return how many chunks a program takes, in a tile of so many elements.

    The interpreter's time goes by programs, not by elements; compiled, a number that depends on
    the chunks would be compiled anew for other chunks.
    """
    if INTERPRETED:
        return min(2 ** (chunks - 1).bit_length(), 2**18 // cols)
    return tile // cols


def unavailable() -> str | None:
    """Return why kernels cannot be launched here, or do not round as they should; or None."""
    if INTERPRETED:
        if tuple(int(part) for part in triton.__version__.split(".")[:2]) < (3, 9):
            return f"the interpreter of Triton {triton.__version__} rounds an fma twice, 3.9's once"
        return None
    try:
        triton.runtime.driver.active.get_current_device()
    except Exception as error:  # no GPU, or none of Triton's own needs, such as a C compiler
        return f"Triton drives no GPU here: {error}"
    return None


def runs_on(device: Device) -> bool:
    """Return whether kernels can be launched on a device."""
    return device.type in _TYPES


def device_type(groups: list[dict[str, Any]]) -> str:
    """Return the device type of a step: that of the first parameter that kernels run on."""
    params = (p for group in groups for p in group["params"])
    return next((p.device.type for p in params if runs_on(p.device)), _TYPES[0])


def launch(kernel: Any, programs: int, device: Device, *args: Any, **constants: Any) -> None:
    """Launch a kernel on the device's current stream."""
    with _on(device):
        kernel[(programs,)](*args, **constants, num_warps=_WARPS, enable_fp_fusion=False)


def _on(device: Device) -> contextlib.AbstractContextManager[Any]:
    if INTERPRETED:
        import numpy

        return numpy.errstate(all="ignore")  # infinities and NaNs are as good as any number
    module = torch.get_device_module(device)
    if device.index == module.current_device():
        return contextlib.nullcontext()
    guard: contextlib.AbstractContextManager[Any] = module.device(device)
    return guard
