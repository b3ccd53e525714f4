"""The step in C++ (csrc), for dense tensors on the CPU; what is not goes to the reference."""

from __future__ import annotations

import platform
from typing import Any

import torch
from torch import Tensor

from ..scaling import Scaling
from . import reference

try:
    from .. import _C
except ImportError as error:
    raise ImportError(f"lrfused._C was not built, or not for this torch: {error}") from error

Program = _C.Program

# Where torch's own CPU kernels round a product before they add it, so does the step.
FUSED = not (
    platform.machine() in ("x86_64", "AMD64")
    and torch.backends.cpu.get_cpu_capability() == "DEFAULT"
)


def step(
    groups: list[dict[str, Any]],
    state: dict[Tensor, dict[str, Any]],
    program: Any,
    advance: bool,
    scaling: Scaling,
) -> bool:
    """Update every parameter that has a gradient, then advance the program if asked.

    Returns whether the update was made.
    """
    if scaling.skips():
        scaling.rest(program, advance)
        return False
    inv_scale = scaling.inv_scale()

    def odd(params: list[tuple[int, Tensor]]) -> Any:
        return reference.prepare(params, groups, state, program.cells()[::2], inv_scale)

    if _C.step(groups, state, program, inv_scale, advance, FUSED, odd):
        _order(groups, state)
    return True


def _order(groups: list[dict[str, Any]], state: dict[Tensor, dict[str, Any]]) -> None:
    """Put the state's entries in the order of the parameters, where the step finds them fastest."""
    ordered = {p: state[p] for group in groups for p in group["params"] if p in state}
    ordered.update({k: v for k, v in state.items() if k not in ordered})
    if any(a is not b for a, b in zip(ordered, state, strict=True)):
        state.clear()  # not only reordered: without the holes that removed entries leave
        state.update(ordered)
