"""Clipped steps that the reference makes: of odd tensors, or of several devices, under one norm."""

from __future__ import annotations

from ...arithmetic.gradient_scaling import GradientScaling
from .. import reference
from ..base import Groups, State
from .program import Program


def step(
    groups: Groups, state: State, program: Program, advance: bool, scaling: GradientScaling
) -> bool:
    """Wait for the devices, then step with the reference; return whether it updated."""
    program.settle()
    now = groups_now(groups, program)
    updated = reference.backend.step(now, state, program, False, scaling)
    if advance and (updated or not scaling.on_update):
        program.advance(groups)
    return updated


def groups_now(groups: Groups, program: Program) -> Groups:
    """Return the groups with the momenta that a schedule has given them on the host."""
    cells, cycled = program.cells(), program.momentum_cells
    return [
        {**group, "momentum": cells[cycled[g]]} if g in cycled else group
        for g, group in enumerate(groups)
    ]
