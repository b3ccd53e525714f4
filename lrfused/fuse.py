"""Continue a torch.optim.SGD and its schedulers, also in the middle of a run."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau, SequentialLR

from . import program
from .checks.numbers import plain
from .checks.refusals import as_float
from .optimizer import FusedDecaySGD
from .outside_modes import outside_modes, tensor, zeros
from .program.recorded import Recorded
from .scheduler import Scheduler
from .schedules import Adopted

# Entries of torch's own SGD, of the tensors, and of a FusedDecaySGD that it was loaded from.
_DROPPED = {
    "params", "param_names", "foreach", "fused", "differentiable", "schedule", "capturable",
}  # fmt: skip


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

    scheduler: one, or several in the order in which the loop steps them. A class unknown to lrfused
    is recorded for its next `total_steps` steps. Hooks of the optimizer are not taken over.

    Raises TypeError for an optimizer that is no torch.optim.SGD and, without total_steps, for an
    unknown scheduler; ValueError for an optimizer or scheduler that cannot be continued.
    """
    if not isinstance(optimizer, SGD) or type(optimizer).step is not SGD.step:
        raise TypeError(
            "fuse(optimizer=...) must be a torch.optim.SGD with torch's own step, got "
            f"{_name(optimizer)}"
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
    defaults = {k: v for k, v in optimizer.defaults.items() if k not in _DROPPED}
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


def _group(group: dict[str, Any]) -> dict[str, Any]:
    params = list(group["params"])
    if "param_names" in group:
        params = list(zip(group["param_names"], params, strict=True))
    kept = {k: v for k, v in group.items() if k not in _DROPPED}
    return {**kept, "params": params}


def _known(optimizer: SGD, schedulers: list[Any], total_steps: int | None) -> list[Any]:
    """Return equivalent schedulers, all of classes that lrfused can compile."""
    plateaus = [s for s in schedulers if type(s) is ReduceLROnPlateau]
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
    names = ", ".join(map(_name, unknown))
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
    return [_record(optimizer, schedulers, total_steps)]


@outside_modes
def _record(optimizer: SGD, schedulers: list[Any], total_steps: int) -> Recorded:
    """Run copies of the schedulers ahead and record the groups' numbers after each step."""
    if isinstance(total_steps, bool) or not isinstance(total_steps, int) or total_steps < 1:
        raise ValueError(
            f"fuse(total_steps=...) must be an integer of at least 1, got {total_steps!r}"
        )
    stand_in = SGD([{**_group(group), "params": [zeros(0)]} for group in optimizer.param_groups])
    copies = [copy.deepcopy(s, {id(optimizer): stand_in}) for s in schedulers]
    rows = [_numbers(stand_in)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of schedulers that step before the optimizer
        for _ in range(total_steps):
            for s in copies:
                s.step()
            rows.append(_numbers(stand_in))
    for key in sorted(rows[0].keys() - {"lr", "momentum"}):
        if any(row[key] != rows[0][key] for row in rows):
            raise ValueError(f"{_name(schedulers[0])} moves {key!r}, which cannot be recorded")
    tapes = {key: tensor([row[key] for row in rows], torch.float64) for key in ("lr", "momentum")}
    moved = bool((tapes["momentum"] != tapes["momentum"][0]).any())
    return Recorded(
        stand_in,
        ", ".join(map(_name, schedulers)),
        tapes["lr"],
        tapes["momentum"] if moved else None,
        int(getattr(schedulers[0], "last_epoch", 0)),
    )


def _numbers(optimizer: SGD) -> dict[str, list[float]]:
    keys = ("lr", "momentum", "dampening", "weight_decay")
    return {key: [as_float(key, group[key]) for group in optimizer.param_groups] for key in keys}
