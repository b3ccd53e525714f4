"""Compile torch schedulers to segments: the only place that knows a schedule by name.

A schedule step of any torch scheduler is one affine map of the rate,

    lr = x * (lr - a) + b        (relative)
    lr = x * a + b               (absolute)

applied at the epochs begin, begin + every, ... below end, with x a constant or a table by epoch.
The expressions for x, a and b are torch's own, so that the results are torch's to the last bit:
closed forms would not be, nor would the cosines of another libm (csrc/schedule.h runs the maps).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch.optim import lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from .checks import as_float

FOREVER = 2**62
# Added to a product, leaves it as it is; 0.0 would turn -0.0 into 0.0.
NOTHING = -0.0


@dataclass(frozen=True)
class Segment:
    """Say when one affine map applies to one group, and which."""

    begin: int
    end: int
    every: int = 1
    absolute: bool = False
    x: float | Sequence[float] = 1.0
    a: float = 0.0
    b: float = NOTHING

    def delayed(self, by: int) -> Segment:
        """Return the segment `by` epochs later, without what would be before epoch 0."""
        begin, end = self.begin + by, self.end if self.end == FOREVER else self.end + by
        skipped = -(begin // self.every) if begin < 0 else 0
        table = self.x if isinstance(self.x, float) or not skipped else self.x[skipped:]
        return replace(self, begin=begin + skipped * self.every, end=end, x=table)


@dataclass(frozen=True)
class Compiled:
    """Hold a scheduler's segments for each of its groups, valid below the epoch `until`."""

    groups: list[list[Segment]]
    until: int = FOREVER


def _for_all(scheduler: Any, segments: list[Segment]) -> Compiled:
    return Compiled([segments for _ in scheduler.optimizer.param_groups])


def _step(s: Any, begin: int, end: int) -> Compiled:
    size = int(s.step_size)
    return _for_all(s, [Segment(size, FOREVER, every=size, x=float(s.gamma))])


def _multi_step(s: Any, begin: int, end: int) -> Compiled:
    cuts = sorted((int(m), n) for m, n in s.milestones.items() if m == int(m) and m >= begin)
    return _for_all(s, [Segment(m, m + 1, x=float(s.gamma**n)) for m, n in cuts])


def _exponential(s: Any, begin: int, end: int) -> Compiled:
    return _for_all(s, [Segment(1, FOREVER, x=float(s.gamma))])


def _cosine(s: Any, begin: int, end: int) -> Compiled:
    t_max, low = s.T_max, float(s.eta_min)
    # Leaving its minimum, where the recursion would divide by zero, torch adds a fixed climb.
    climbs = [t for t in range(begin, end) if (t - 1 - t_max) % (2 * t_max) == 0]
    groups = []
    pieces = [
        Segment(first, last, x=_cosine_table(t_max, first, last), a=low, b=low)
        for first, last in zip([begin, *(t + 1 for t in climbs)], [*climbs, end], strict=True)
    ]
    for base in s.base_lrs:
        climb = (base - low) * (1 - math.cos(math.pi / t_max)) / 2
        groups.append([*pieces, *(Segment(t, t + 1, x=1.0, b=climb) for t in climbs)])
    return Compiled(groups, end)


def _cosine_table(t_max: float, begin: int, end: int) -> Sequence[float]:
    ones = [1 + math.cos(math.pi * t / t_max) for t in range(begin - 1, end)]
    return [now / before for before, now in itertools.pairwise(ones)]


def _lambda(s: Any, begin: int, end: int) -> Compiled:
    values: dict[int, list[Any]] = {}
    for function in s.lr_lambdas:
        if id(function) not in values:
            values[id(function)] = _evaluate(function, begin, end)
            end = begin + len(values[id(function)])
    tables = {key: [float(v) for v in own] for key, own in values.items()}
    groups = []
    for function, base in zip(s.lr_lambdas, s.base_lrs, strict=True):
        own = values[id(function)][: end - begin]
        if all(isinstance(v, (int, float)) and not hasattr(v, "dtype") for v in own):
            segment = Segment(begin, end, absolute=True, x=tables[id(function)], a=float(base))
        else:  # a numpy scalar or tensor has its own way to multiply
            products = [float(base * v) for v in own]
            segment = Segment(begin, end, absolute=True, x=products, a=1.0)
        groups.append([segment])
    return Compiled(groups, end)


def _evaluate(function: Callable[[int], Any], begin: int, end: int) -> list[Any]:
    """Call a user's function ahead of time; where it fails, stop, and let it fail in its turn."""
    values: list[Any] = []
    for epoch in range(begin, end):
        try:
            value = function(epoch)
            as_float(f"what lr_lambda({epoch}) returns", value)
        except Exception:
            if epoch == begin:
                raise
            break
        values.append(value)
    return values


_COMPILERS: dict[type[LRScheduler], Callable[[Any, int, int], Compiled]] = {
    lr_scheduler.StepLR: _step,
    lr_scheduler.MultiStepLR: _multi_step,
    lr_scheduler.ExponentialLR: _exponential,
    lr_scheduler.CosineAnnealingLR: _cosine,
    lr_scheduler.LambdaLR: _lambda,
}


def compile(scheduler: LRScheduler, begin: int, end: int) -> Compiled:
    """Compile a bound torch scheduler for its epochs begin (1 or more) to end.

    What needs a table gets one for this window; `until` says where to compile anew.
    """
    return _COMPILERS[type(scheduler)](scheduler, begin, end)


def plateau_row(s: lr_scheduler.ReduceLROnPlateau, group: int) -> list[float]:
    """Return what csrc/schedule.h's Plateau holds, for one of the scheduler's groups."""
    return [
        float(s.mode == "max"),
        float(s.threshold_mode == "abs"),
        *(float(x) for x in (s.factor, s.patience, s.threshold, s.cooldown)),
        float(s.min_lrs[group]),
        float(s.eps),
    ]
