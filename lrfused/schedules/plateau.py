"""The one schedule that depends on a metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch.optim import lr_scheduler

from .arguments import count
from .base import Schedule


class ReduceLROnPlateau(Schedule):
    """Multiply the rate by `factor` when a metric has not improved for `patience` epochs.

    `optimizer.scheduler.step(metric)` feeds it, and waits for no device. In a list it multiplies
    the rate of the other schedules. `verbose=True` prints each reduction. Three arguments go
    beyond torch, and have no effect by default:

    accumulate: decide once per so many metrics, on their mean, so that every step's training loss
    may be fed. nan: "bad" counts a metric that is NaN as no better, as torch does; "ignore" drops
    it. process_group: the torch.distributed group over whose ranks each metric is averaged.
    """

    torch_class = lr_scheduler.ReduceLROnPlateau

    def __init__(
        self,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0,
        eps: float = 1e-8,
        verbose: bool = False,
        *,
        accumulate: int = 1,
        nan: Literal["bad", "ignore"] = "bad",
        process_group: Any = None,
    ) -> None:
        super().__init__(
            mode=mode,
            factor=factor,
            patience=patience,
            threshold=threshold,
            threshold_mode=threshold_mode,
            cooldown=cooldown,
            min_lr=min_lr,
            eps=eps,
            verbose=verbose,
            accumulate=accumulate,
            nan=nan,
            process_group=process_group,
        )

    def _check(self) -> None:
        count("ReduceLROnPlateau", "accumulate", self.accumulate)
        if self.nan not in ("bad", "ignore"):
            raise ValueError(
                f"ReduceLROnPlateau(nan=...) must be 'bad' or 'ignore', got {self.nan!r}"
            )
        if self.process_group is not None and not hasattr(self.process_group, "rank"):
            raise TypeError(
                "ReduceLROnPlateau(process_group=...) must be a torch.distributed process group, "
                f"got {self.process_group!r}"
            )

    def __deepcopy__(self, memo: dict[int, Any]) -> ReduceLROnPlateau:
        return self  # a process group cannot be copied, and the rest are numbers

    def bind(self, optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
        """Construct the torch scheduler on `optimizer`; add `accumulate` and `nan` to it."""
        arguments = self.arguments
        beyond = {key: arguments.pop(key) for key in ("accumulate", "nan")}
        del arguments["verbose"], arguments["process_group"]
        bound = lr_scheduler.ReduceLROnPlateau(optimizer, **arguments)
        if beyond != {"accumulate": 1, "nan": "bad"}:
            vars(bound).update(beyond, metric_sum=0.0, metric_count=0)
        return bound
