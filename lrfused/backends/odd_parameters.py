"""Odd parameters: those that no backend takes as they are, such as DTensors.

Where parameter, gradient and momentum buffer are laid out over the ranks alike, a step is a step of
every rank's own part, and a backend takes the parts of all parameters like any other tensors.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..arithmetic.gradient_scaling import GradientScaling
from ..arithmetic.masters import has_master
from . import reference
from .base import Groups, State


class OddParameters(reference.CheckedParameters):
    """Checked parameters, of which sharded ones go through a backend's kernels by their parts.

    `step` updates all parameters of the groups that it is given and moves no rate.
    """

    def __init__(
        self,
        params: list[tuple[int, Tensor]],
        groups: Groups,
        state: State,
        rates: list[float],
        scaling: GradientScaling,
        step: Callable[[Groups, State], object],
    ) -> None:
        super().__init__(params, groups, state, rates, scaling)
        self._step = step
        self._internals: list[tuple[int, Any, Tensor]] = []
        self._here: Groups = [{**group, "params": []} for group in groups]
        self._momenta: State = defaultdict(dict)
        todo, self._todo = self._todo, []
        for g, p, own in todo:
            momentum = groups[g]["momentum"] != 0
            if not has_master(p, scaling.master) and _alike(p, own, momentum):
                self._internals.append((g, p, self._part(g, p, own)))
            else:
                self._todo.append((g, p, own))

    @torch.no_grad()
    def _part(self, g: int, p: Any, own: dict[str, Any]) -> Tensor:
        part = p.to_local().detach()
        part.grad = p.grad.to_local()
        buffer: Any = own.get("momentum_buffer")
        if buffer is not None:
            self._momenta[part]["momentum_buffer"] = buffer.to_local()
        self._here[g]["params"].append(part)
        return part

    @torch.no_grad()
    def __call__(self, clip: float = 1.0) -> None:
        """Update them; those that are sharded are never clipped, but refused."""
        if self._internals:
            self._step(self._here, self._momenta)
            torch.autograd.graph.increment_version([p for _, p, _ in self._internals])
        for g, p, part in self._internals:
            momentum = self._groups[g]["momentum"] != 0
            if momentum and self._state[p].get("momentum_buffer") is None:
                self._state[p]["momentum_buffer"] = _like(p, self._momenta[part]["momentum_buffer"])
        super().__call__(clip)


def _alike(p: Any, own: dict[str, Any], momentum: bool) -> bool:
    """Return whether these are DTensors with the same placements on the same mesh."""
    distributed = sys.modules.get("torch.distributed.tensor")
    if distributed is None or type(p) is not distributed.DTensor:
        return False
    if any(placement.is_partial() for placement in p.placements):
        return False  # the parts' sum is rounded once
    buffer = own.get("momentum_buffer") if momentum else None
    return all(
        type(other) is distributed.DTensor
        and other.device_mesh == p.device_mesh
        and other.placements == p.placements
        and type(other._local_tensor) is Tensor  # not one that is still under way
        for other in ((p, p.grad) if buffer is None else (p, p.grad, buffer))
    )


def _like(p: Any, part: Tensor) -> Tensor:
    """Return the DTensor laid out as `p` whose part here is `part`."""
    return type(p).from_local(
        part, p.device_mesh, p.placements, run_check=False, shape=p.shape, stride=p.stride()
    )
