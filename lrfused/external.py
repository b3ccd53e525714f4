"""A torch scheduler that was attached to a FusedDecaySGD in the ordinary way."""

from __future__ import annotations

import gc
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from .scheduler import Scheduler


def attached(optimizer: Any) -> bool:
    """Say whether a torch scheduler moves the rates, and warn once that the built-in one rests.

    To be called within the step, by what the step calls.
    """
    own = optimizer.__dict__
    if not _has_one(own) and "_around" not in own:
        if not any(_has_one(caller.__dict__) for caller in _callers(optimizer)):
            return False
        optimizer._around = True
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


def _has_one(own: dict[str, Any]) -> bool:
    # torch's schedulers wrap an optimizer's step, which others may wrap in turn.
    return hasattr(own.get("step"), "_wrapped_by_lr_sched") or bool(own.get("_opt_called"))


def _callers(optimizer: Any) -> Iterator[Any]:
    """Yield the optimizers that are calling this one's step: wrappers, accelerate's for one."""
    frame: Any = sys._getframe()
    for _ in range(16):  # between theirs and ours are hooks, GradScaler, and this search
        # Looking at a frame's locals keeps them alive as long as it runs: not at the user's own.
        caller = frame.f_locals.get("self") if frame.f_code.co_name == "step" else None
        if issubclass(type(caller), Optimizer) and caller is not optimizer:
            yield caller
        if (frame := frame.f_back) is None:
            return


def _names(optimizer: Any) -> str:
    # They leave no trace of themselves on the optimizer but its wrapped step.
    found = {
        type(holder).__name__
        for holder in gc.get_objects()
        if issubclass(type(holder), LRScheduler)  # isinstance would ask proxies what they are
        and not issubclass(type(holder), (Scheduler, ReduceLROnPlateau))
        and getattr(getattr(holder, "optimizer", None), "param_groups", ())
        is optimizer.param_groups
    }
    return ", ".join(sorted(found))
