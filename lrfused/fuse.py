"""Continue a torch.optim.SGD and its schedulers, also in the middle of a run."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from torch.optim import SGD
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau, SequentialLR

from . import program
from .checks.numbers import plain
from .checks.overrides import has_torchs_step, overridden, own_methods
from .optimizer import FusedDecaySGD
from .scheduler import Scheduler
from .schedules import Adopted

# Entries of torch's own SGD, of the tensors, and of a FusedDecaySGD that it was loaded from.
_DROPPED = {
    "params", "param_names", "foreach", "fused", "differentiable", "schedule", "capturable",
}  # fmt: skip
_DEFAULTS = ("lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize")


def fuse(
    optimizer: SGD,
    scheduler: LRScheduler | Sequence[LRScheduler] | None = None,
    *,
    total_steps: int | None = None,
    schedule_every: int | None = None,
    amp: str | None = None,
    advance: str = "always",
    max_grad_norm: float | None = None,
    backend: str = "auto",
    capturable: bool = False,
) -> tuple[FusedDecaySGD, Scheduler]:
    """Continue a torch.optim.SGD and its schedulers as a FusedDecaySGD; return it and its handle.

    Parameters, momentum buffers, groups, rates and counters are the same; do not use the two given
    objects afterwards. The loop may stay as it is, `optimizer.step(); scheduler.step()`; with
    `schedule_every` the schedule advances inside the step instead. `amp`, `advance`,
    `max_grad_norm`, `backend` and `capturable` are FusedDecaySGD's.

    scheduler: one, or several in the order in which the loop steps them. Of its own attributes it
    keeps those that are plain data. A class unknown to lrfused is recorded: its next `total_steps`
    steps are made here and now, and then it and the optimizer are put back as they were. Hooks of
    the optimizer are not taken over.

    Raises TypeError for an optimizer that is no torch.optim.SGD or replaces a method of its step,
    and, without total_steps, for an unknown scheduler; ValueError for an optimizer or scheduler
    that cannot be continued, and for one that, while it is recorded, fails or writes more than the
    groups.
    """
    if not isinstance(optimizer, SGD) or not has_torchs_step(type(optimizer)):
        raise TypeError(
            "fuse(optimizer=...) must be a torch.optim.SGD with torch's own step, got "
            f"{_name(optimizer)}"
        )
    replaced = overridden(optimizer)
    if replaced is not None:
        raise TypeError(
            f"fuse(optimizer=...): this {_name(optimizer)} replaces SGD's {replaced}, which "
            "FusedDecaySGD would leave out"
        )
    for i, group in enumerate(optimizer.param_groups):
        if group["differentiable"]:
            raise ValueError(
                f"param_groups[{i}]['differentiable'] is True, which FusedDecaySGD does not support"
            )
    schedulers = list(scheduler) if isinstance(scheduler, (list, tuple)) else [scheduler]
    schedulers = [s for s in schedulers if s is not None]
    if not schedulers and hasattr(optimizer.step, "_wrapped_by_lr_sched"):
        warnings.warn(
            "fuse(optimizer) leaves a torch scheduler behind that is attached to the optimizer: "
            "its steps no longer move a rate; pass it, fuse(optimizer, scheduler)",
            stacklevel=2,
        )
    for s in schedulers:
        if not isinstance(s, LRScheduler) or isinstance(s, Scheduler):
            raise TypeError(f"fuse(scheduler=...) must be torch schedulers, got {_name(s)}")
        if getattr(s, "optimizer", None) is not optimizer:
            raise ValueError(f"fuse(scheduler=...) has a {_name(s)} of another optimizer")
    schedule = [Adopted(s) for s in _known(optimizer, schedulers, plain(total_steps))]
    defaults = {k: v for k, v in optimizer.defaults.items() if k in _DEFAULTS}
    fused = FusedDecaySGD(
        [_group(group) for group in optimizer.param_groups],
        **defaults,
        schedule=schedule,
        schedule_every=schedule_every,
        amp=amp,
        advance=advance,
        max_grad_norm=max_grad_norm,
        backend=backend,
        capturable=capturable,
    )
    fused.state.update(optimizer.state)
    fused._internals.prepare_capture(fused.param_groups, fused.state)
    return fused, fused.scheduler


def _name(thing: Any) -> str:
    return type(thing).__name__


def _described(scheduler: Any) -> str:
    own = own_methods(scheduler)
    return f"{_name(scheduler)} with its own {', '.join(own)}" if own else _name(scheduler)


def _group(group: dict[str, Any]) -> dict[str, Any]:
    params = list(group["params"])
    if "param_names" in group:
        params = list(zip(group["param_names"], params, strict=True))
    kept = {k: v for k, v in group.items() if k not in _DROPPED}
    return {**kept, "params": params}


def _known(optimizer: SGD, schedulers: list[Any], total_steps: int | None) -> list[Any]:
    """Return equivalent schedulers, all of classes that lrfused can compile."""
    plateaus = [s for s in schedulers if type(s) is ReduceLROnPlateau and not own_methods(s)]
    for s in schedulers:
        if isinstance(s, ReduceLROnPlateau) and s not in plateaus:
            raise TypeError(
                f"{_name(s)} decides on metrics in a way of its own, which cannot be recorded"
            )
        for later in getattr(s, "_schedulers", ())[1:] if type(s) is SequentialLR else ():
            if hasattr(later, "_schedulers"):
                raise ValueError(
                    f"a SequentialLR cannot start a {_name(later)} at a milestone, where torch "
                    "would fail: only its first member may be a composition"
                )
    unknown = [s for s in schedulers if s not in plateaus and not program.compiles(s)]
    if not unknown:
        return schedulers
    names = ", ".join(_described(leaf) for s in unknown for leaf in program.unknown(s))
    if total_steps is None:
        raise TypeError(
            f"lrfused does not know {names}: pass fuse(total_steps=...) to record its next steps, "
            "as many as the run has left"
        )
    if plateaus:
        raise ValueError(
            f"{names} would be recorded, and a recording undoes what ReduceLROnPlateau cuts: fuse "
            "it alone"
        )
    if isinstance(total_steps, bool) or not isinstance(total_steps, int) or total_steps < 1:
        raise ValueError(
            f"fuse(total_steps=...) must be an integer of at least 1, got {total_steps!r}"
        )
    return [program.record(optimizer, schedulers, total_steps)]
