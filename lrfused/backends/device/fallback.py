"""Clipped steps that the reference makes: of odd tensors, or of several devices, under one norm."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...arithmetic.gradient_scaling import GradientScaling
from .. import reference
from .program import Program


def step(
    groups: list[dict[str, Any]],
    state: dict[Tensor, dict[str, Any]],
    program: Program,
    advance: bool,
    scaling: GradientScaling,
) -> bool:
    """Make one, on rates and momenta that the host knows; return whether the update was made."""
    program.settle()
    now = groups_now(groups, program)
    updated = reference.step(now, state, program, False, scaling)
    if advance and (updated or not scaling.on_update):
        program.advance(groups)
    return updated


def groups_now(groups: list[dict[str, Any]], program: Program) -> list[dict[str, Any]]:
    """Return the groups with the momenta that a schedule gives them, as far as the host knows."""
    cells, cycled = program.cells(), program.momentum_cells
    return [
        {**group, "momentum": cells[cycled[g]]} if g in cycled else group
        for g, group in enumerate(groups)
    ]
