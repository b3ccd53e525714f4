"""Keep the step out of what torch.compile traces."""

from __future__ import annotations

import functools
from typing import Any

import torch


def stay_in_eager(optimizer: Any) -> None:
    """Have compiled functions call the step of this class as it is, in one graph break.

    It is one call of a kernel already, and its bookkeeping is no tensor that a graph could hold.
    """
    step = optimizer.step
    if hasattr(step, "stays_in_eager"):
        return
    untraced = torch.compiler.disable(step, reason="the step is one kernel already")

    @functools.wraps(step)
    def outermost(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_dynamo_compiling():  # otherwise without what `disable` costs
            return untraced(*args, **kwargs)
        return step(*args, **kwargs)

    outermost.stays_in_eager = True  # type: ignore[attr-defined]
    optimizer.step = outermost
