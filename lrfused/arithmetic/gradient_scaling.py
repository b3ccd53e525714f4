"""What is done to gradients before the update, and when no update is made."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .norm import clip_coefficient


@dataclass(slots=True)
class GradientScaling:
    """Tell a backend's step what concerns all groups alike, and be told the norm.

    `grad_scale` and `found_inf` are GradScaler's, or None: numbers, or tensors of one element on
    any device, which a backend may leave there. Gradients are multiplied by the inverse of the
    first; if the second is not 0, and NaN is not, no update is made.
    """

    amp: str | None = None
    on_update: bool = False  # the schedule rests in a step without an update
    max_grad_norm: float | None = None
    master: str | None = None  # what the state of a 16-bit parameter calls its master
    grad_scale: Any = None
    found_inf: Any = None
    grad_norm: Tensor = field(default_factory=lambda: _fp64(math.nan))

    def read(self, optimizer: Any) -> None:
        """Take what GradScaler has set on the optimizer for this step."""
        self.grad_scale = getattr(optimizer, "grad_scale", None)
        self.found_inf = getattr(optimizer, "found_inf", None)

    def skips(self) -> bool:
        """Return whether no update is to be made, waiting for the device that knows."""
        if self.found_inf is None or float(self.found_inf) == 0:
            return False
        self.grad_norm = _fp64(math.nan)  # not taken
        return True

    def inv_scale(self) -> float:
        """Return what gradients are multiplied by, as GradScaler.unscale_ computes it."""
        if self.grad_scale is None:
            return 1.0
        return float(torch.as_tensor(self.grad_scale).double().reciprocal().float())

    @property
    def scaled(self) -> bool:
        """Return whether a GradScaler is at work, under which no infinity may reach a parameter."""
        return self.grad_scale is not None or self.found_inf is not None

    def clip(self, norm: float) -> float | None:
        """Return what clipping multiplies gradients by, or None if no update is to be made."""
        assert self.max_grad_norm is not None
        self.grad_norm = _fp64(norm)
        if self.scaled and not math.isfinite(norm):
            return None
        return clip_coefficient(norm, self.max_grad_norm)

    def rest(self, program: Any, groups: list[dict[str, Any]], advance: bool) -> None:
        """Make a step without an update."""
        program.use()
        if advance and not self.on_update:
            program.advance(groups)


def _fp64(x: float) -> Tensor:
    return torch.tensor(x, dtype=torch.float64)
