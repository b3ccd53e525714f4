"""Compile compositions: a sequence concatenates its members' segments, a chain joins them."""

from __future__ import annotations

import copy
import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    CosineAnnealingWarmRestarts,
    OneCycleLR,
    SequentialLR,
)
from torch.torch_version import TorchVersion

from ..checks.overrides import own_methods
from ..schedules.versions import annealing
from .epochs import advanced, ahead
from .maps import MAPS, restart, restarted
from .recorded import Recorded
from .segment import FOREVER, CompiledSchedule, Segment


def compiles(scheduler: Any) -> bool:
    """Return whether `compile` can compile the scheduler and its members."""
    return not unknown(scheduler)


def unknown(scheduler: Any) -> list[Any]:
    """Return the scheduler, or those of its members, that `compile` cannot compile."""
    if own_methods(scheduler):
        return [scheduler]
    if type(scheduler) in (SequentialLR, ChainedScheduler):
        return [one for member in scheduler._schedulers for one in unknown(member)]
    if isinstance(scheduler, OneCycleLR) and annealing(scheduler) is None:
        return [scheduler]
    return [] if type(scheduler) in MAPS else [scheduler]


def compile(scheduler: Any, count: int) -> CompiledSchedule:
    """Compile the next `count` steps of a torch scheduler, from the state it is in.

    Tables cover these steps. Step `until` is the first that must be compiled again.
    """
    if isinstance(scheduler, SequentialLR):
        return _sequential(scheduler, count)
    if isinstance(scheduler, ChainedScheduler):
        return _together([compile(s, count) for s in scheduler._schedulers])
    return _compiled(MAPS[type(scheduler)], scheduler, count)


def _compiled(
    function: Callable[..., CompiledSchedule], scheduler: Any, *count: int
) -> CompiledSchedule:
    """Compile; if that raises, return the error for the first of these steps."""
    try:
        return function(scheduler, *count)
    except Exception as error:
        return CompiledSchedule([[] for _ in scheduler.optimizer.param_groups], 1, error)


def _together(parts: Sequence[CompiledSchedule]) -> CompiledSchedule:
    """Join the segments of several schedulers, applied in order in every step."""
    groups = [
        [s for row in rows for s in row] for rows in zip(*(p.groups for p in parts), strict=True)
    ]
    shortest = min(parts, key=lambda part: part.until)
    return CompiledSchedule(groups, shortest.until, shortest.error)


def _runs(s: Any, count: int) -> Iterator[tuple[int, int, int, bool]]:
    """Yield (member, first step, last step, whether the member starts with these steps)."""
    epochs = ahead(s.last_epoch, count)
    cuts = sorted({math.ceil(m) for m in s._milestones if abs(m) < math.inf})
    k = 1
    while k <= count:
        t = epochs[k - 1]
        i = bisect_right(s._milestones, t)
        if i > 0 and s._milestones[i - 1] == t:
            yield i, k, k, True
            k += 1
            continue
        if isinstance(epochs, range):
            following = min(next((cut - s.last_epoch for cut in cuts if cut > t), FOREVER), FOREVER)
        else:
            own = (n for n in range(k, count) if bisect_right(s._milestones, epochs[n]) != i)
            following = next(own, count) + 1
        yield i, k, following - 1, False
        k = following


def _sequential(s: Any, count: int) -> CompiledSchedule:
    members = [copied(member) for member in s._schedulers]
    groups: list[list[Segment]] = [[] for _ in s.optimizer.param_groups]
    for i, first, last, starts in _runs(s, count):
        steps = min(last, count) - first + 1
        part = _compiled(restart, members[i]) if starts else compile(members[i], steps)
        for group, segments in zip(groups, part.groups, strict=True):
            group.extend(x.delayed(first - 1).until(last + 1) for x in segments)
        if part.error is not None or (last >= count and part.until != FOREVER):
            return CompiledSchedule(groups, min(first - 1 + part.until, last + 1), part.error)
        if last == FOREVER - 1:
            return CompiledSchedule(groups)
        if not starts:
            forward(members[i], steps)
    return CompiledSchedule(groups, count + 1)


def copied(scheduler: Any) -> Any:
    """Return a copy of a scheduler and its members, with counters of their own."""
    own = copy.copy(scheduler)
    if hasattr(scheduler, "_schedulers"):
        own._schedulers = [copied(member) for member in scheduler._schedulers]
    return own


_COUNTERS = ("last_epoch", "_step_count", "T_cur", "T_i")


def set_counters(scheduler: Any, other: Any) -> None:
    """Set the counters of a scheduler and its members to those of a copy."""
    own = vars(other)
    vars(scheduler).update({key: own[key] for key in _COUNTERS if key in own})
    members = getattr(scheduler, "_schedulers", ())
    for member, member_copy in zip(members, own.get("_schedulers", ()), strict=True):
        set_counters(member, member_copy)


def forward(scheduler: Any, count: int) -> None:
    """Advance a scheduler's counters by `count` steps; the rates stay as they are."""
    s = scheduler
    if isinstance(s, ChainedScheduler):
        for member in s._schedulers:
            forward(member, count)
    elif isinstance(s, SequentialLR):
        for i, first, last, starts in _runs(s, count):
            if starts:
                s._schedulers[i].last_epoch = 0
            else:
                forward(s._schedulers[i], min(last, count) - first + 1)
        s.last_epoch = advanced(s.last_epoch, count)
    elif isinstance(s, CosineAnnealingWarmRestarts):
        if s.last_epoch < 0 and count > 0:
            s.last_epoch, s.T_cur, s.T_i, count = 0, 0, s.T_0, count - 1
        if count > 0:  # torch rounds this class's epoch down
            s.last_epoch = math.floor(s.last_epoch + 1) + count - 1
        s.T_cur, s.T_i = restarted(s.T_cur, s.T_i, s.T_mult, count)
    else:
        s.last_epoch = advanced(s.last_epoch, count)
        s._step_count += count


def last_epoch(scheduler: Any) -> Any:
    """Return a scheduler's epoch; a chain's is that of its first member."""
    if isinstance(scheduler, ChainedScheduler):
        return last_epoch(scheduler._schedulers[0])
    return scheduler.last_epoch


def set_last_epoch(scheduler: Any, epoch: float) -> None:
    """Set a scheduler's epoch; a chain's is that of all its members."""
    if isinstance(scheduler, ChainedScheduler):
        for member in scheduler._schedulers:
            set_last_epoch(member, epoch)
    else:
        scheduler.last_epoch = epoch


# From torch 2.13 on SequentialLR starts the member that the milestones select; before, the first.
_STARTS_SELECTED = torch.__version__ >= TorchVersion("2.13")


def show_rates(scheduler: Any, rates: Sequence[float]) -> None:
    """Set the rates that `get_last_lr` returns, for a scheduler and its members at work."""
    scheduler._last_lr = list(rates)
    if isinstance(scheduler, ChainedScheduler):
        for member in scheduler._schedulers:
            show_rates(member, rates)
    elif isinstance(scheduler, SequentialLR):
        at_work = bisect_right(scheduler._milestones, scheduler.last_epoch)
        if scheduler.last_epoch == 0 and not _STARTS_SELECTED:
            at_work = 0
        show_rates(scheduler._schedulers[at_work], rates)


def cycles_momentum(scheduler: Any) -> bool:
    """Return whether a scheduler that is no composition moves momentum too."""
    return bool(getattr(scheduler, "cycle_momentum", False)) or (
        isinstance(scheduler, Recorded) and scheduler.momentums is not None
    )
