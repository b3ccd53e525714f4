"""The step in Triton, for dense tensors on a GPU; what is not goes to the reference.

With TRITON_INTERPRET=1 it runs on the CPU instead, slowly, and computes the same bits: that is how
it is tested where there is no GPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch import device as Device

from ...scaling import Scaling
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
    scaling: Scaling,
) -> bool:
    """Update every parameter that has a gradient, then advance the program if asked.

    Returns whether the update was made; True, too, where only the device knows.
    """
    if scaling.max_grad_norm is not None:
        return fallback.step(groups, state, program, advance, scaling)
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
        _refuse_to_capture(found)
    stays = _stays(scaling, found)
    if not stays and scaling.skips():
        scaling.rest(program, advance)
        return False
    run_odd = None
    if found.odd:
        run_odd = shards.Work(
            found.odd, fallback.groups_now(groups, program), state, cells[::2], scaling,
            lambda parts, momenta: step(parts, momenta, program, False, scaling),
        )  # fmt: skip
    mirrors = {device: program.mirror(device, recording) for device in found.devices}
    hypers = torch.tensor(rows, dtype=torch.float64)
    terms = {}
    for device, mirror in mirrors.items():
        mirror.put("hyper-parameters", hypers, image(hypers), recording)
        terms[device] = mirror.plain_terms(recording)
        if stays:
            terms[device] = mirror.found_terms(scaling.grad_scale, scaling.found_inf, recording)
        elif scaling.scaled:
            terms[device] = mirror.known_terms(scaling.inv_scale(), recording)
    created = _create(found)
    jobs = []
    for kind, slots in found.slots.items():
        tables = mirrors[kind.device].tables_of(kind)
        if recording and not tables.holds(slots):
            raise RuntimeError(
                "this step cannot be captured: parameters, gradients or tensors of the state moved "
                "since the last step; keep gradients where they are (zero_grad(set_to_none=False)) "
                "and make two steps with them before the capture"
            )
        tables.put(slots)
        jobs.append(tables)
    for tables in jobs:
        mirror = mirrors[tables.device]
        tables.launch(
            mirror["hyper-parameters"], mirror["rates"], terms[tables.device], mirror["used"],
            len(groups),
        )  # fmt: skip
    program.use(found.devices)
    for slots in found.slots.values():
        torch.autograd.graph.increment_version(slots.params)
    for p, key, tensor in created:
        state[p][key] = tensor
    if run_odd is not None:
        run_odd()
    if advance:
        program.advance()
    for mirror in mirrors.values() if recording else ():
        mirror.freeze()
    return True


def _stays(scaling: Scaling, found: Found) -> bool:
    """Say whether the device is to read what GradScaler says, and the host is not.

    The host must know of a skipped step if it would make tensors of the state, if the schedule
    rests in it, or if parameters are elsewhere, too.
    """
    tensors = [t for t in (scaling.grad_scale, scaling.found_inf) if t is not None]
    return (
        bool(tensors)
        and not found.odd
        and len(found.devices) == 1
        and not found.firsts
        and not scaling.on_update
        and all(_is_a_float_on(t, found.devices[0]) for t in tensors)
    )


def _is_a_float_on(number: Any, device: Device) -> bool:
    return (
        type(number) is Tensor
        and number.device == device
        and number.dtype == torch.float32
        and number.numel() == 1
    )


def _refuse_to_capture(found: Found) -> None:
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
