"""Unscaling and clipping of gradients, and steps without an update."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch import device as Device

from ..outside_modes import tensor
from .norm import clip_coefficient


@dataclass(slots=True)
class GradientScaling:
    """Hold the settings that a step applies to all groups alike, and the norm that it takes.

    `grad_scale` and `found_inf` are GradScaler's, or None: numbers, or tensors of one element on
    any device, which a backend may leave there. Gradients are multiplied by the inverse of
    `grad_scale`. If `found_inf` is not 0 (NaN is not 0), the step makes no update.
    """

    amp: str | None = None
    on_update: bool = False  # in a step without an update the schedule does not advance
    max_grad_norm: float | None = None
    master: str | None = None  # the key of masters in the state: masters.KEYS
    grad_scale: Any = None
    found_inf: Any = None
    norm: float | Tensor = math.nan  # of all gradients in the last step

    @property
    def grad_norm(self) -> Tensor:
        """Return the norm of all gradients in the last step as a tensor of one fp64 element."""
        if not isinstance(self.norm, Tensor):
            self.norm = tensor(self.norm, torch.float64)
        return self.norm

    def read(self, optimizer: Any) -> None:
        """Read the attributes that GradScaler sets on the optimizer for a step."""
        self.grad_scale = getattr(optimizer, "grad_scale", None)
        self.found_inf = getattr(optimizer, "found_inf", None)

    def skips(self) -> bool:
        """Return whether the step makes no update; wait for the device of `found_inf`."""
        if self.found_inf is None or float(self.found_inf) == 0:
            return False
        self.norm = math.nan  # not taken
        return True

    def inv_scale(self) -> float:
        """Return the factor that unscales gradients, computed as in GradScaler.unscale_."""
        if self.grad_scale is None:
            return 1.0
        scale = self.grad_scale
        scale = scale if isinstance(scale, Tensor) else tensor(scale, torch.float32)
        return float(scale.double().reciprocal().float())

    def is_on(self, device: Device) -> bool:
        """Return whether there are numbers of GradScaler's, all readable by a device's kernels."""
        for t in (self.grad_scale, self.found_inf):
            if t is not None and not (
                type(t) is Tensor
                and t.device == device
                and t.dtype == torch.float32
                and t.numel() == 1
            ):
                return False
        return self.scaled

    @property
    def scaled(self) -> bool:
        """Return whether a GradScaler is used; then no infinity may reach a parameter."""
        return self.grad_scale is not None or self.found_inf is not None

    def clip(self, norm: float) -> float | None:
        """Return the factor that clips gradients, or None if the step makes no update."""
        assert self.max_grad_norm is not None
        self.norm = norm
        if self.scaled and not math.isfinite(norm):
            return None
        return clip_coefficient(norm, self.max_grad_norm)

    def step_without_update(
        self, program: Any, groups: list[dict[str, Any]], advance: bool
    ) -> None:
        """Make a step without an update."""
        program.use()
        if advance and not self.on_update:
            program.advance(groups)
