"""A torch scheduler that was attached to a FusedDecaySGD in the ordinary way."""

from __future__ import annotations

import gc
import warnings
from typing import Any

from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from .scheduler import Scheduler


def attached(optimizer: Any) -> bool:
    """Say whether a torch scheduler moves the rates, and warn once that the built-in one rests.

    One that is on a wrapper of the optimizer, as accelerate's is, is found when a rate has been
    written for the first time.
    """
    own = optimizer.__dict__
    if not hasattr(own.get("step"), "_wrapped_by_lr_sched") and not own.get("_opt_called"):
        if "_around" not in own:
            optimizer._around = _names(optimizer)
        if not optimizer._around:
            return False
    if not own.get("_warned_of_external"):
        optimizer._warned_of_external = True
        names = [type(s).__name__ for chain in optimizer._rates.chains for s in chain.members]
        warnings.warn(
            f"{_names(optimizer) or 'a torch scheduler'} was attached to a FusedDecaySGD that has "
            f"a schedule of its own, {', '.join(names)}: the attached one moves the rates, the "
            "built-in one rests. Pass either a schedule or a scheduler",
            stacklevel=4,
        )
    return True


def _names(optimizer: Any) -> str:
    # torch's schedulers leave no trace of themselves on the optimizer but its wrapped step.
    found = {
        type(holder).__name__
        for holder in gc.get_objects()
        if issubclass(type(holder), LRScheduler)  # isinstance would ask proxies what they are
        and not issubclass(type(holder), (Scheduler, ReduceLROnPlateau))
        and getattr(getattr(holder, "optimizer", None), "param_groups", ())
        is optimizer.param_groups
    }
    return ", ".join(sorted(found))
