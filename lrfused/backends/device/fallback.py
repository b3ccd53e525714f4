"""Steps that no kernel of a device does, but the reference: those that clip, or have masters."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...masters import has_master
from ...scaling import Scaling
from .. import reference
from . import transfer
from .program import Program


def wanted(groups: list[dict[str, Any]], scaling: Scaling) -> bool:
    """Say whether this is such a step."""
    return scaling.max_grad_norm is not None or (
        scaling.master is not None
        and any(has_master(p, scaling.master) for group in groups for p in group["params"])
    )


def step(
    groups: list[dict[str, Any]],
    state: dict[Tensor, dict[str, Any]],
    program: Program,
    advance: bool,
    scaling: Scaling,
) -> bool:
    """Make it, on rates and momenta that the host knows; return whether the update was made."""
    if any(transfer.capturing(p.device) for group in groups for p in group["params"][:1]):
        raise RuntimeError(
            "this step cannot be captured: max_grad_norm and master_weights take the reference's "
            "path on a GPU, which waits for it"
        )
    program.settle()
    now = groups_now(groups, program)
    return reference.step(now, state, program, advance, scaling)


def groups_now(groups: list[dict[str, Any]], program: Program) -> list[dict[str, Any]]:
    """Return the groups with the momenta that a schedule gives them, as far as the host knows."""
    cells, cycled = program.cells(), program.momentum_cells
    return [
        {**group, "momentum": cells[cycled[g]]} if g in cycled else group
        for g, group in enumerate(groups)
    ]
