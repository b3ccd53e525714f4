"""A scheduler that plays back the rates of a scheduler of an unknown class."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler


class Recorded(LRScheduler):
    """Set each group's rate, and momentum if recorded, from a tape.

    lrs and momentums (or None) are fp64 tensors of shape (total_steps + 1, groups); row k has the
    values of the groups k steps after epoch `start`.
    """

    def __init__(
        self, optimizer: Any, recorded: str, lrs: Tensor, momentums: Tensor | None, start: float
    ) -> None:
        self.recorded, self.lrs, self.momentums = recorded, lrs, momentums
        if abs(start) >= 2**52:  # a float counts no further
            start = int(start)
        self.start, self.total_steps = start, len(lrs) - 1
        super().__init__(optimizer)
        self.last_epoch = start  # type: ignore[assignment]

    @property
    def played(self) -> int:
        """Return how many steps of the tape were made."""
        return round(self.last_epoch - self.start)  # a fraction of an epoch rounds at each step

    def ended(self) -> Exception:
        """Return the error for a step past the end of the tape."""
        return ValueError(
            f"{self.recorded} was recorded for total_steps={self.total_steps} and is asked for "
            "another step; pass a larger total_steps to fuse()"
        )

    def get_lr(self) -> list[float | Tensor]:
        """Return the rates at this epoch."""
        k = 0 if self._is_initial else self.played
        if k > self.total_steps:
            raise self.ended()
        if self.momentums is not None:
            momentums = self.momentums[k].tolist()
            for group, momentum in zip(self.optimizer.param_groups, momentums, strict=True):
                group["momentum"] = momentum
        return self.lrs[k].tolist()
