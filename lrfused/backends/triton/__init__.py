"""The step in Triton, for dense tensors on a GPU; what is not goes to the reference.

With TRITON_INTERPRET=1 it runs on the CPU instead, slowly, and computes the same bits: that is how
it is tested where there is no GPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...scaling import Scaling
from .. import shards
from ..device import fallback, transfer
from ..device.mirror import image
from . import launch
from .launch import unavailable
from .program import Program
from .slots import FIRST, Found, gather, in_range, read_groups

__all__ = ["Program", "step", "unavailable"]


def step(
    groups: list[dict[str, Any]],
    state: dict[Tensor, dict[str, Any]],
    program: Program,
    advance: bool,
    scaling: Scaling,
) -> bool:
    """Update every parameter that has a gradient, then advance the program if asked.

    Returns whether the update was made.
    """
    if fallback.wanted(groups, scaling):
        return fallback.step(groups, state, program, advance, scaling)
    if scaling.skips():
        scaling.rest(program, advance)
        return False
    inv_scale = scaling.inv_scale()
    rows = read_groups(groups, inv_scale, program.momentum_cells)
    found = program.memory.recall(groups, state)
    if found is None:
        found = gather(groups, state)
        program.memory.remember(found, groups, state)
    cells = program.cells()
    if found.odd or not in_range(rows, cells) or not program.runs_on_all(found.devices):
        program.settle()  # the reference takes rates from the host
        cells = program.cells()
        if not in_range(rows, cells):
            found = found.all_odd()
    run_odd = None
    if found.odd:
        run_odd = shards.Work(
            found.odd, fallback.groups_now(groups, program), state, cells[::2], scaling,
            lambda parts, momenta: step(parts, momenta, program, False, scaling),
        )  # fmt: skip
    devices = [*found.devices, *(p.device for _, p in found.odd if launch.runs_on(p.device))]
    recording = any(transfer.capturing(device) for device in dict.fromkeys(devices))
    if recording:
        _refuse_to_capture(found)
    mirrors = {device: program.mirror(device, recording) for device in found.devices}
    hypers = torch.tensor(rows, dtype=torch.float64)
    for mirror in mirrors.values():
        mirror.put("hyper-parameters", hypers, image(hypers), recording)
    created = _create(found)
    jobs = []
    for (device, dtype), slots in found.slots.items():
        tables = mirrors[device].tables_of(dtype)
        if recording and not tables.holds(slots):
            raise RuntimeError(
                "this step cannot be captured: parameters, gradients or momentum buffers moved "
                "since the last step; keep gradients where they are (zero_grad(set_to_none=False)) "
                "and make two steps with them before the capture"
            )
        tables.put(slots)
        jobs.append((tables, mirrors[device]))
    for tables, mirror in jobs:
        tables.launch(mirror["hyper-parameters"], mirror["rates"], mirror["used"], len(groups))
    program.use(found.devices)
    for slots in found.slots.values():
        torch.autograd.graph.increment_version(slots.params)
    for p, buffer in created:
        state[p]["momentum_buffer"] = buffer
    if run_odd is not None:
        run_odd()
    if advance:
        program.advance()
    for mirror in mirrors.values() if recording else ():
        mirror.freeze()
    return True


def _refuse_to_capture(found: Found) -> None:
    if found.odd:
        shape = tuple(found.odd[0][1].shape)
        raise RuntimeError(
            f"this step cannot be captured: a parameter of shape {shape} in group "
            f"{found.odd[0][0]}, its gradient and its momentum buffer are not plain tensors in one "
            "memory order"
        )
    if any(slots.firsts for slots in found.slots.values()):
        raise RuntimeError(
            "this step cannot be captured: it would make momentum buffers; make two steps before"
        )


def _create(found: Found) -> list[tuple[Tensor, Tensor]]:
    """Make the momentum buffers of parameters that take their first step."""
    created = []
    for slots in found.slots.values():
        for i in slots.firsts:
            p = slots.params[i]
            buffer = torch.empty_like(p, requires_grad=False)
            param, grad, _, numel, g, _ = slots.rows[i]
            slots.rows[i] = (param, grad, buffer.data_ptr(), numel, g, FIRST)
            created.append((p, buffer))
    return created
