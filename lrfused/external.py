"""A torch scheduler that was attached to a FusedDecaySGD in the ordinary way."""

from __future__ import annotations

import gc
import warnings
from typing import Any

from torch.optim.lr_scheduler import LRScheduler

from .scheduler import Scheduler


def attached(optimizer: Any) -> bool:
    """Say whether a torch scheduler moves the rates, and warn once that the built-in one rests."""
    if not hasattr(optimizer.__dict__["step"], "_wrapped_by_lr_sched"):
        return False
    if not optimizer.__dict__.get("_warned_of_external"):
        optimizer._warned_of_external = True
        names = [type(s).__name__ for chain in optimizer._rates.chains for s in chain.members]
        warnings.warn(
            f"{_name(optimizer)} was attached to a FusedDecaySGD that has a schedule of its own, "
            f"{', '.join(names)}: the attached one moves the rates, the built-in one rests. Pass "
            "either a schedule or a scheduler",
            stacklevel=4,
        )
    return True


def _name(optimizer: Any) -> str:
    # torch's schedulers leave no trace of themselves on the optimizer but its wrapped step.
    found = {
        type(holder).__name__
        for holder in gc.get_objects()
        if issubclass(type(holder), LRScheduler)  # isinstance would ask proxies what they are
        and type(holder) is not Scheduler
        and getattr(holder, "optimizer", None) is optimizer
    }
    return ", ".join(sorted(found)) or "a torch scheduler"
