"""What is done to gradients before the update, and when no update is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(slots=True)
class Scaling:
    """Tell a backend's step what concerns all groups alike.

    `grad_scale` and `found_inf` are GradScaler's, or None: numbers, or tensors of one element on
    any device, which a backend may leave there. Gradients are multiplied by the inverse of the
    first; if the second is not 0, and NaN is not, no update is made.
    """

    amp: str | None = None
    on_update: bool = False  # the schedule rests in a step without an update
    grad_scale: Any = None
    found_inf: Any = None

    def read(self, optimizer: Any) -> None:
        """Take what GradScaler has set on the optimizer for this step."""
        self.grad_scale = getattr(optimizer, "grad_scale", None)
        self.found_inf = getattr(optimizer, "found_inf", None)

    def skips(self) -> bool:
        """Say whether no update is to be made, waiting for the device that knows."""
        return self.found_inf is not None and float(self.found_inf) != 0

    def inv_scale(self) -> float:
        """Return what gradients are multiplied by, as GradScaler.unscale_ computes it."""
        if self.grad_scale is None:
            return 1.0
        return float(torch.as_tensor(self.grad_scale).double().reciprocal().float())

    def rest(self, program: Any, advance: bool) -> None:
        """Make a step without an update."""
        program.use()
        if advance and not self.on_update:
            program.advance()
