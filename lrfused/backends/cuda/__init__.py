"""The step in CUDA (csrc/cuda), for dense tensors on a GPU; what is not goes to the reference.

One launch on each device updates all tensors of all groups and makes the schedule's step for the
next. An lrfused that was built without CUDA runs the same code on CPU tensors, slowly, where
LRFUSED_EMULATE_CUDA=1: that is how it is tested where there is no GPU.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ... import _C
from ...scaling import Scaling
from .. import shards
from ..device import fallback, transfer
from . import driver
from .driver import unavailable
from .program import Program

__all__ = ["Program", "prepare", "step", "unavailable"]


def step(
    groups: list[dict[str, Any]],
    state: dict[Tensor, dict[str, Any]],
    program: Program,
    advance: bool,
    scaling: Scaling,
) -> bool:
    """Update every parameter that has a gradient, then advance the program if asked.

    Returns whether the update was made; True, too, where only the device knows.
    """
    if fallback.wanted(groups, scaling):
        return fallback.step(groups, state, program, advance, scaling)
    cells = program.cells()
    found = _C.DeviceStep(groups, state, cells)
    devices = [driver.device_of(index) for index in found.devices]
    odd = found.odd
    if odd or not found.valid or not program.runs_on_all(devices):
        program.settle()  # the reference takes rates from the host
        cells = program.cells()
        found = _C.DeviceStep(groups, state, cells)
        odd = found.odd
        devices = devices if found.valid else []
    there = [*devices, *(p.device for _, p in odd if driver.runs_on(p.device))]
    recording = any(transfer.capturing(device) for device in dict.fromkeys(there))
    if recording:
        _refuse_to_capture(odd, found.firsts)
    on_device = not odd and len(devices) == 1 and _stays(scaling, devices[0], found.firsts)
    if not on_device and scaling.skips():
        scaling.rest(program, advance)
        return False
    run_odd = None
    if odd:
        now = fallback.groups_now(groups, program)
        run_odd = shards.Work(
            odd, now, state, cells[::2], scaling,
            lambda parts, momenta: step(parts, momenta, program, False, scaling),
        )  # fmt: skip
    natives = {device: program.native(device, recording) for device in devices}
    cycled = [program.momentum_cells.get(g, -1) for g in range(len(groups))]
    inv_scale = 1.0 if on_device else scaling.inv_scale()
    if devices:
        found.create()
    for device, native in natives.items():
        found.launch(
            native,
            driver.current_stream(device),
            cycled,
            inv_scale,
            scaling.grad_scale if on_device else None,
            scaling.found_inf if on_device else None,
            advances=advance and not odd,  # which may raise, and then nothing has advanced
            always=True,
            recording=recording,
        )
    program.use(devices)
    if devices:
        found.finish(state)
    if run_odd is not None:
        run_odd()
    if advance:
        program.advance(done=[] if odd else devices)
    return True


def _stays(scaling: Scaling, device: torch.device, firsts: int) -> bool:
    """Say whether the device is to read what GradScaler says, and the host is not.

    The host must know of a skipped step if it is a parameter's first, for which it makes a momentum
    buffer, or if the schedule rests in it.
    """
    tensors = [t for t in (scaling.grad_scale, scaling.found_inf) if t is not None]
    return (
        bool(tensors)
        and not firsts
        and not scaling.on_update
        and all(
            isinstance(t, Tensor)
            and t.device == device
            and t.dtype == torch.float32
            and t.numel() == 1
            for t in tensors
        )
    )


def _refuse_to_capture(odd: list[tuple[int, Tensor]], firsts: int) -> None:
    if odd:
        shape = tuple(odd[0][1].shape)
        raise RuntimeError(
            f"this step cannot be captured: a parameter of shape {shape} in group {odd[0][0]}, its "
            "gradient and its momentum buffer are not plain tensors in one memory order"
        )
    if firsts:
        raise RuntimeError(
            "this step cannot be captured: it would make momentum buffers; make a step before, or "
            "construct the optimizer with capturable=True on parameters that are on the GPU, "
            "without dampening"
        )


@torch.no_grad()
def prepare(
    groups: list[dict[str, Any]], state: dict[Tensor, dict[str, Any]], program: Program
) -> None:
    """Make ready for a capture of the very first step.

    From a momentum buffer of -0.0 the formula of later steps computes the first step's bits, if
    there is no dampening: 1 * d + momentum * -0.0 is d, -0.0 and NaN too. So buffers are made
    beforehand, and a captured step need not know which of its replays is the first.
    """
    devices = []
    for group in groups:
        momentum = float(group["momentum"])
        plain = 0 < momentum < math.inf and group["dampening"] == 0
        for p in group["params"]:
            if not driver.runs_on(p.device):
                continue
            devices.append(p.device)
            if plain and "momentum_buffer" not in state.get(p, {}):
                state[p]["momentum_buffer"] = torch.full_like(p, -0.0, requires_grad=False)
    for device in dict.fromkeys(devices):
        program.mirror(device)
