"""State that is made before a capture, so that the very first step can be a captured one.

From a momentum buffer of -0.0 the formula of later steps computes the first step's bits, if there
is no dampening: 1 * d + momentum * -0.0 is d, -0.0 and NaN too. So a captured step needs
no flag for its first replay.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch import device as Device

from ...arithmetic.gradient_scaling import GradientScaling
from ...arithmetic.masters import has_master, made_of
from ...arithmetic.sparse import is_sparse
from ...checks.refusals import DTYPES
from ..base import Groups, State


class Prepared(NamedTuple):
    """A master that was made before its parameter's first step, and both tensors' versions then."""

    master: Tensor
    param_version: int
    master_version: int


PreparedMasters = dict[Tensor, Prepared]  # by parameter


@torch.no_grad()
def make(
    groups: Groups,
    state: State,
    scaling: GradientScaling,
    runs_on: Callable[[Device], bool],
    prepared: PreparedMasters,
) -> None:
    """Make the momentum buffers and masters that are missing, and note the masters."""
    key = scaling.master
    for group in groups:
        momentum = float(group["momentum"])
        plain = 0 < momentum < math.inf and group["dampening"] == 0
        for p in group["params"]:
            if not runs_on(p.device) or p.dtype not in DTYPES or is_sparse(p):
                continue  # a captured step takes none of them
            mastered = has_master(p, key)
            own = state.get(p, {})
            if plain and own.get("momentum_buffer") is None:
                dtype = torch.float32 if mastered else p.dtype
                buffer = torch.full_like(p, -0.0, dtype=dtype, requires_grad=False)
                state[p]["momentum_buffer"] = buffer
            if key is not None and mastered and own.get(key) is None:
                state[p][key] = master = made_of(p, key)
                if key == "master":
                    prepared[p] = Prepared(master, p._version, master._version)


@torch.no_grad()
def renew(groups: Groups, state: State, prepared: PreparedMasters, recording: bool) -> None:
    """Make masters anew whose parameters were written, by a checkpoint, since they were made.

    Those that were themselves loaded stay.
    """
    for p in _of_step(groups, prepared):
        if _was_loaded(p, state, prepared) or p._version == prepared[p].param_version:
            continue
        if recording:
            raise RuntimeError(
                "this step cannot be captured: a parameter was written since its master was made; "
                "make a step before, or construct the optimizer when the weights are loaded"
            )
        master = prepared[p].master.copy_(p)
        prepared[p] = Prepared(master, p._version, master._version)


def forget_used(groups: Groups, prepared: PreparedMasters) -> None:
    """Forget the masters that a step has used: from then on they are the truth."""
    for p in _of_step(groups, prepared):
        del prepared[p]


def _of_step(groups: Groups, prepared: PreparedMasters) -> list[Tensor]:
    """Return the parameters that a step updates and that have a prepared master."""
    params = (p for group in groups for p in group["params"])
    return [p for p in params if p.grad is not None and p in prepared]


def without(state: State, prepared: PreparedMasters) -> State:
    """Return the state without the masters that no step has used.

    A copy of the optimizer makes its own: those would outlive weights that are loaded into it.
    """
    kept = state.copy()
    for p in prepared:
        if not _was_loaded(p, state, prepared):
            kept[p] = {key: value for key, value in state[p].items() if key != "master"}
    return kept


def _was_loaded(p: Tensor, state: State, prepared: PreparedMasters) -> bool:
    """Return whether a checkpoint has replaced or written the master."""
    master, _, version = prepared[p]
    return state.get(p, {}).get("master") is not master or master._version != version
