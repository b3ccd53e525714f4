"""torch's schedulers that set the rate from the epoch alone, in cycles."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from torch.optim import lr_scheduler

from .base import Schedule


class CosineAnnealingWarmRestarts(Schedule):
    """Anneal the rate along half a cosine to `eta_min`, again and again.

    The first cycle lasts `T_0` epochs, each later one `T_mult` times as long as the one before.
    Source: SGDR, https://arxiv.org/abs/1608.03983.
    """

    torch_class = lr_scheduler.CosineAnnealingWarmRestarts

    def __init__(
        self, T_0: int, T_mult: int = 1, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        super().__init__(T_0=T_0, T_mult=T_mult, eta_min=eta_min, last_epoch=last_epoch)


class CyclicLR(Schedule):
    """Move the rate between `base_lr` and `max_lr`, and momentum the other way.

    `scale_fn` is called some epochs ahead, as LambdaLR's lr_lambda is.
    Source: https://arxiv.org/abs/1506.01186.
    """

    torch_class = lr_scheduler.CyclicLR

    def __init__(
        self,
        base_lr: float | list[float],
        max_lr: float | list[float],
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: Literal["triangular", "triangular2", "exp_range"] = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None,
        scale_mode: Literal["cycle", "iterations"] = "cycle",
        cycle_momentum: bool = True,
        base_momentum: float = 0.8,
        max_momentum: float = 0.9,
        last_epoch: int = -1,
    ) -> None:
        super().__init__(
            base_lr=base_lr,
            max_lr=max_lr,
            step_size_up=step_size_up,
            step_size_down=step_size_down,
            mode=mode,
            gamma=gamma,
            scale_fn=scale_fn,
            scale_mode=scale_mode,
            cycle_momentum=cycle_momentum,
            base_momentum=base_momentum,
            max_momentum=max_momentum,
            last_epoch=last_epoch,
        )

    def _check(self) -> None:
        # Torch divides by zero where the ratio of both is 0 or 1, and returns NaN without an end.
        for name in ("step_size_up", "step_size_down"):
            value = self.arguments[name]
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"CyclicLR({name}=...) must be above 0 and finite, got {value!r}")


class OneCycleLR(Schedule):
    """Raise the rate to `max_lr`, then lower it almost to 0; move momentum the other way.

    A step after the last of `total_steps` raises ValueError, as in torch, and changes nothing.
    Source: super-convergence, https://arxiv.org/abs/1708.07120.
    """

    torch_class = lr_scheduler.OneCycleLR

    def __init__(
        self,
        max_lr: float | list[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: Literal["cos", "linear"] = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.85,
        max_momentum: float | list[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 10000.0,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        super().__init__(
            max_lr=max_lr,
            total_steps=total_steps,
            epochs=epochs,
            steps_per_epoch=steps_per_epoch,
            pct_start=pct_start,
            anneal_strategy=anneal_strategy,
            cycle_momentum=cycle_momentum,
            base_momentum=base_momentum,
            max_momentum=max_momentum,
            div_factor=div_factor,
            final_div_factor=final_div_factor,
            three_phase=three_phase,
            last_epoch=last_epoch,
        )
