"""Step hooks and the profiler's range, skipped where none is active; a warning of schedulers."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.compiler import is_dynamo_compiling
from torch.optim import Optimizer
from torch.optim import optimizer as base

from ..extension.optional import extension


def wrap_step(cls: Any, own: Any) -> None:
    """Wrap a class's `step` for hooks and the profiler, as torch's constructor would.

    torch's wrapper opens a profiler range at every step, which costs more than a small step: it is
    skipped where no profiler is active and there are no hooks. In a compiled function the step is
    one graph break: its bookkeeping cannot be traced. own: FusedDecaySGD's `step`, which alone may
    be made in one call of the extension; a subclass may have another.
    """
    plain = cls.step
    if getattr(plain, "hooked", False):
        return
    has_observers = _has_observers()
    observed = Optimizer.profile_hook_step(plain)
    may_be_direct = plain is own
    untraced = torch.compiler.disable(observed, reason="the step is one kernel already")

    @functools.wraps(plain)
    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        if is_dynamo_compiling():  # elsewhere `disable` would only cost time
            return untraced(self, *args, **kwargs)
        if may_be_direct and (not (args or kwargs) or _is_none(args, kwargs)):
            direct = self._internals.rates.direct
            if direct is not None and direct.step(self):
                return None
        if (  # not in a function of its own, which Dynamo would trace
            has_observers()
            or self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or base._global_optimizer_pre_hooks
            or base._global_optimizer_post_hooks
        ):
            return observed(self, *args, **kwargs)
        return plain(self, *args, **kwargs)

    step.hooked = True  # type: ignore[attr-defined]
    cls.step = step


def _is_none(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Return whether the only argument of a step is a closure of None."""
    if kwargs:
        return not args and len(kwargs) == 1 and kwargs.get("closure", args) is None
    return len(args) == 1 and args[0] is None


def warn_of_attached(optimizer: Any, own: Iterable[Any]) -> bool:
    """Warn if another torch scheduler has wrapped the optimizer's step; return whether it warned.

    torch's schedulers leave no other trace on an optimizer.
    """
    step = optimizer.__dict__.get("step")
    if not hasattr(step, "_wrapped_by_lr_sched"):
        return False
    hooks = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
    everyones = base._global_optimizer_pre_hooks or base._global_optimizer_post_hooks
    observed = bool(hooks or everyones or _has_observers()())  # torch's wrapper is one call more
    names = ", ".join(type(scheduler).__name__ for scheduler in own)
    warnings.warn(
        f"a torch scheduler was attached to a FusedDecaySGD whose step moves a schedule, {names}: "
        "both act, as two torch schedulers on one optimizer do. If only one is meant, construct "
        "the optimizer without a schedule, or do not attach the other",
        stacklevel=5 + observed,
    )
    return True


def _has_observers() -> Callable[[], bool]:
    """Return a function that tells whether a profiler is active; True without the extension."""
    native = extension()
    return (lambda: True) if native is None else native.has_observers
