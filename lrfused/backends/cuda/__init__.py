"""The step in CUDA (csrc/cuda), for dense tensors on a GPU; what is not goes to the reference.

One launch on each device updates all tensors of all groups and makes the schedule's step for the
next; with max_grad_norm one before it takes the norm. An lrfused that was built without CUDA runs
the same code on CPU tensors, slowly, where LRFUSED_EMULATE_CUDA=1: that is how it is tested where
there is no GPU.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ...arithmetic.gradient_scaling import GradientScaling
from ...arithmetic.masters import has_master, made_of
from ...extension.load import _C
from .. import shards
from ..device import fallback, transfer
from . import driver
from .driver import unavailable, unavailable_on
from .program import Program

__all__ = ["Program", "prepare", "step", "unavailable", "unavailable_on"]

_MASTERS = {
    None: _C.Master.none,
    "master": _C.Master.whole,
    "master_remainder": _C.Master.remainder,
}


def step(
    groups: list[dict[str, Any]],
    state: dict[Tensor, dict[str, Any]],
    program: Program,
    advance: bool,
    scaling: GradientScaling,
) -> bool:
    """Update every parameter that has a gradient, then advance the program if asked.

    Returns whether the update was made; True, too, where only the device knows.
    """
    cells, kept = program.cells(), _MASTERS[scaling.master]
    found = _C.DeviceStep(groups, state, cells, kept)
    devices = [driver.device_of(index) for index in found.devices]
    odd = found.odd
    if odd or not found.valid or not program.runs_on_all(devices):
        program.settle()  # the reference takes rates from the host
        cells = program.cells()
        found = _C.DeviceStep(groups, state, cells, kept)
        odd = found.odd
        devices = devices if found.valid else []
    there = [*devices, *(p.device for _, p in odd if driver.runs_on(p.device))]
    recording = any(transfer.capturing(device) for device in dict.fromkeys(there))
    clips = scaling.max_grad_norm is not None
    if recording:
        _refuse_to_capture(odd, found.firsts, clips and len(devices) > 1, scaling)
    if program.ahead:
        _renew(groups, state, program.ahead, recording)
    if clips and (odd or len(devices) > 1):
        return fallback.step(groups, state, program, advance, scaling)
    on_device = not odd and len(devices) == 1 and _stays(scaling, devices[0], found.firsts)
    if not on_device and scaling.skips():
        scaling.rest(program, groups, advance)
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
    if on_device:
        found.scale(1.0, scaling.grad_scale, scaling.found_inf)
    else:
        found.scale(scaling.inv_scale(), None, None)
    if scaling.max_grad_norm is not None:
        scaling.grad_norm = torch.zeros((), dtype=torch.float64)
        for device, native in natives.items():
            stream = driver.current_stream(device)
            scaling.grad_norm = found.norm(native, stream, scaling.max_grad_norm, recording)[0]
        asks = bool(found.firsts) or scaling.on_update  # as in _stays
        if scaling.scaled and asks and not math.isfinite(scaling.grad_norm.item()):
            scaling.rest(program, groups, advance)
            return False
    if devices:
        found.create()
    for device, native in natives.items():
        found.launch(
            native,
            driver.current_stream(device),
            cycled,
            advances=advance and not odd,  # which may raise, and then nothing has advanced
            always=True,
            finite=scaling.scaled,
            recording=recording,
        )
    program.use(devices)
    if devices:
        found.finish(state)
    if run_odd is not None:
        run_odd()
    if advance:
        program.advance(groups, done=[] if odd else devices)
    return True


def _stays(scaling: GradientScaling, device: torch.device, firsts: int) -> bool:
    """Return whether the device is to read what GradScaler says, and the host is not.

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


def _refuse_to_capture(
    odd: list[tuple[int, Tensor]], firsts: int, scattered: bool, scaling: GradientScaling
) -> None:
    if odd:
        shape = tuple(odd[0][1].shape)
        raise RuntimeError(
            f"this step cannot be captured: a parameter of shape {shape} in group {odd[0][0]}, its "
            "gradient, its momentum buffer and its master are not plain tensors in one memory order"
        )
    if firsts:
        raise RuntimeError(
            "this step cannot be captured: it would make momentum buffers or masters; make a step "
            "before, or construct the optimizer with capturable=True on parameters that are on the "
            "GPU, without dampening"
        )
    if scattered:
        raise RuntimeError(
            "this step cannot be captured: with max_grad_norm and parameters on several devices "
            "the host sums up"
        )
    if scaling.on_update and scaling.scaled:
        raise RuntimeError(
            "this step cannot be captured: with advance='on_update' the host decides whether the "
            "schedule advances"
        )


@torch.no_grad()
def prepare(
    groups: list[dict[str, Any]],
    state: dict[Tensor, dict[str, Any]],
    program: Program,
    scaling: GradientScaling,
) -> None:
    """Make ready for a capture of the very first step.

    From a momentum buffer of -0.0 the formula of later steps computes the first step's bits, if
    there is no dampening: 1 * d + momentum * -0.0 is d, -0.0 and NaN too. So buffers are made
    beforehand, and a captured step need not know which of its replays is the first. Masters are
    made too.
    """
    key, devices = scaling.master, []
    for group in groups:
        momentum = float(group["momentum"])
        plain = 0 < momentum < math.inf and group["dampening"] == 0
        for p in group["params"]:
            if not driver.runs_on(p.device):
                continue
            devices.append(p.device)
            mastered = has_master(p, key)
            own = state.get(p, {})
            if plain and own.get("momentum_buffer") is None:
                dtype = torch.float32 if mastered else p.dtype
                buffer = torch.full_like(p, -0.0, dtype=dtype, requires_grad=False)
                state[p]["momentum_buffer"] = buffer
            if key is not None and mastered and own.get(key) is None:
                state[p][key] = made_of(p, key)
                if key == "master":
                    program.ahead[p] = (state[p][key], p._version, state[p][key]._version)
    numels = [p.numel() for group in groups for p in group["params"]]
    for device in dict.fromkeys(devices):
        program.native(device, recording=False).reserve(numels)


@torch.no_grad()
def _renew(
    groups: list[dict[str, Any]],
    state: dict[Tensor, dict[str, Any]],
    ahead: dict[Tensor, tuple[Tensor, int, int]],
    recording: bool,
) -> None:
    """Make masters anew whose parameters were written, by a checkpoint, between `prepare` and now.

    Those that were themselves loaded stay.
    """
    firsts = [p for group in groups for p in group["params"] if p.grad is not None and p in ahead]
    for p in firsts:
        master, version, _ = ahead[p]
        if _was_loaded(p, state, ahead) or p._version == version:
            continue
        if recording:
            raise RuntimeError(
                "this step cannot be captured: a parameter was written since its master was made; "
                "make a step before, or construct the optimizer when the weights are loaded"
            )
        master.copy_(p)
    for p in firsts:
        del ahead[p]


def without_prepared(
    state: dict[Tensor, dict[str, Any]], program: Program
) -> dict[Tensor, dict[str, Any]]:
    """Return the state without the masters that `prepare` made and no step has used.

    A copy of the optimizer makes its own: those would outlive weights that are loaded into it.
    """
    kept = state.copy()
    for p in program.ahead:
        if not _was_loaded(p, state, program.ahead):
            kept[p] = {key: value for key, value in state[p].items() if key != "master"}
    return kept


def _was_loaded(
    p: Tensor,
    state: dict[Tensor, dict[str, Any]],
    ahead: dict[Tensor, tuple[Tensor, int, int]],
) -> bool:
    """Return whether a checkpoint has replaced or written the master that `prepare` made."""
    master, _, own_version = ahead[p]
    return state.get(p, {}).get("master") is not master or master._version != own_version
