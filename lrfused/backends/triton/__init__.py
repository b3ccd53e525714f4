"""The step in Triton, for dense tensors on a GPU; what is not goes to the reference.

With TRITON_INTERPRET=1 it runs on the CPU instead, slowly, and computes the same bits: that is how
it is tested where there is no GPU.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch import device as Device

from ...arithmetic.gradient_scaling import GradientScaling
from .. import shards
from ..device import fallback, transfer
from ..device.mirror import image
from . import launch
from .launch import unavailable
from .program import Program
from .slots import BUFFER, FIRST, Found, gather, in_range, read_groups

__all__ = ["Program", "step", "unavailable"]


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
    rows = read_groups(groups, program.momentum_cells)
    found = program.memory.recall(groups, state, scaling.master)
    if found is None:
        found = gather(groups, state, scaling.master)
        program.memory.remember(found, groups, state, scaling.master)
    cells = program.cells()
    if found.odd or not in_range(rows, cells) or not program.runs_on_all(found.devices):
        program.settle()  # the reference takes rates from the host
        cells = program.cells()
        if not in_range(rows, cells):
            found = found.all_odd()
    devices = [*found.devices, *(p.device for _, p in found.odd if launch.runs_on(p.device))]
    recording = any(transfer.capturing(device) for device in dict.fromkeys(devices))
    if recording:
        _refuse_to_capture(found, scaling)
    clips = scaling.max_grad_norm is not None
    if clips and (found.odd or len(found.devices) != 1):
        return fallback.step(groups, state, program, advance, scaling)
    concerns_host = _concerns_host(scaling, found)
    stays = not concerns_host and _are_on(found.devices[0], scaling)
    if not stays and scaling.skips():
        scaling.rest(program, groups, advance)
        return False
    run_odd = None
    if found.odd:
        run_odd = shards.Work(
            found.odd, fallback.groups_now(groups, program), state, cells[::2], scaling,
            lambda parts, momenta: step(parts, momenta, program, False, scaling),
        )  # fmt: skip
    mirrors = {device: program.mirror(device, recording) for device in found.devices}
    hypers = torch.tensor(rows, dtype=torch.float64)
    for mirror in mirrors.values():
        mirror.put("hyper-parameters", hypers, image(hypers), recording)
        mirror.put_scaling(scaling, stays, recording)
    created = _create(found)
    count = sum(len(group["params"]) for group in groups)
    for device, mirror in mirrors.items():
        slots = {kind: own for kind, own in found.slots.items() if kind.device == device}
        mirror.put_tables(slots, count if clips else None, recording)
    for mirror in mirrors.values():
        mirror.launch_scaling(scaling, stays, recording)
    if clips and scaling.scaled and concerns_host and not math.isfinite(float(scaling.grad_norm)):
        scaling.rest(program, groups, advance)
        return False
    for mirror in mirrors.values():
        mirror.launch_update(len(groups))
    program.use(found.devices)
    for own in found.slots.values():
        torch.autograd.graph.increment_version(own.params)
    for p, key, tensor in created:
        state[p][key] = tensor
    if run_odd is not None:
        run_odd()
    if advance:
        program.advance(groups)
    for mirror in mirrors.values() if recording else ():
        mirror.freeze()
    return True


def _concerns_host(scaling: GradientScaling, found: Found) -> bool:
    """Return whether the host must know if an update is made.

    It must if it would make tensors of the state for it, if the schedule rests without one, or if
    parameters are elsewhere, too.
    """
    return bool(found.odd) or len(found.devices) != 1 or found.firsts or scaling.on_update


def _are_on(device: Device, scaling: GradientScaling) -> bool:
    """Return whether what GradScaler says is there, and to be read there."""
    tensors = [t for t in (scaling.grad_scale, scaling.found_inf) if t is not None]
    return bool(tensors) and all(_is_a_float_on(t, device) for t in tensors)


def _is_a_float_on(number: Any, device: Device) -> bool:
    return (
        type(number) is Tensor
        and number.device == device
        and number.dtype == torch.float32
        and number.numel() == 1
    )


def _refuse_to_capture(found: Found, scaling: GradientScaling) -> None:
    if found.odd:
        shape = tuple(found.odd[0][1].shape)
        raise RuntimeError(
            f"this step cannot be captured: a parameter of shape {shape} in group "
            f"{found.odd[0][0]}, its gradient and its state are not plain tensors in one memory "
            "order"
        )
    if found.firsts:
        raise RuntimeError(
            "this step cannot be captured: it would make momentum buffers or masters; make two "
            "steps before"
        )
    if scaling.max_grad_norm is not None and len(found.devices) > 1:
        raise RuntimeError(
            "this step cannot be captured: with max_grad_norm and parameters on several devices "
            "the host adds up what is on each"
        )


def _create(found: Found) -> list[tuple[Tensor, str, Tensor]]:
    """Make what parameters lack: momentum buffers, and masters, which begin as they are."""
    created: list[tuple[Tensor, str, Tensor]] = []
    for kind, slots in found.slots.items():
        for i, lacks_master in slots.firsts:
            p = slots.params[i]
            param, grad, buffer, master, numel, g, mode = slots.rows[i]
            if mode == FIRST:
                made = torch.empty_like(p, dtype=kind.wide, requires_grad=False)
                created.append((p, BUFFER, made))
                buffer = made.data_ptr()
            if lacks_master:
                assert kind.kept is not None
                made = p.detach().float() if kind.kept == "master" else _no_remainder(p)
                created.append((p, kind.kept, made))
                master = made.data_ptr()
            slots.rows[i] = (param, grad, buffer, master, numel, g, mode)
    return created


def _no_remainder(p: Tensor) -> Tensor:
    return torch.zeros_like(p, dtype=torch.int16, requires_grad=False)
