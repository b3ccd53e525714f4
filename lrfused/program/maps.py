"""The affine maps of each of torch's schedulers, from the state it is in.

Each function compiles the next `count` steps. A step of torch's first increments the epoch, then
computes the rates at that epoch; `t` is that epoch here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from torch.optim import lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from ..checks.refusals import as_float
from .recorded import Recorded
from .segment import FOREVER, CompiledSchedule, Segment, assign


def _for_all(s: Any, segments: list[Segment], until: int = FOREVER) -> CompiledSchedule:
    return CompiledSchedule([segments for _ in s.optimizer.param_groups], until)


def _step(s: Any, count: int) -> CompiledSchedule:
    if not s.step_size < FOREVER:
        return _for_all(s, [])
    size = Fraction(s.step_size).numerator  # an integer is a multiple of p / q if it is one of p
    first = size - s.last_epoch % size
    if s.last_epoch + first == 0:
        first += size
    return _for_all(s, [Segment(first, FOREVER, every=size, x=float(s.gamma))])


def _multi_step(s: Any, count: int) -> CompiledSchedule:
    reached = [(m, n) for m, n in s.milestones.items() if abs(m) < FOREVER and m == int(m)]
    ahead = sorted((int(m) - s.last_epoch, n) for m, n in reached)
    cuts = [Segment(k, k + 1, x=float(s.gamma**n)) for k, n in ahead if k >= 1]
    return _for_all(s, cuts)


def _exponential(s: Any, count: int) -> CompiledSchedule:
    return _for_all(s, [Segment(1, FOREVER, x=float(s.gamma))])


def _at(s: Any, t: float, x: float) -> list[Segment]:
    """Multiply by x at epoch t, if that is still to come."""
    k = t - s.last_epoch
    return [Segment(int(k), int(k) + 1, x=float(x))] if 1 <= k < FOREVER and k == int(k) else []


def _constant(s: Any, count: int) -> CompiledSchedule:
    segments = _at(s, 0, s.factor)
    if s.total_iters != 0:
        segments += _at(s, s.total_iters, 1.0 / s.factor)
    return _for_all(s, segments)


def _linear(s: Any, count: int) -> CompiledSchedule:
    start, end, total = s.start_factor, s.end_factor, s.total_iters
    segments = _at(s, 0, start)
    epochs = range(max(s.last_epoch, 0) + 1, _last(s, count, total) + 1)
    if epochs:
        table = [1.0 + (end - start) / (total * start + (t - 1) * (end - start)) for t in epochs]
        segments.append(_table(s, epochs, table))
    return _for_all(s, segments, _until(s, count, total))


def _polynomial(s: Any, count: int) -> CompiledSchedule:
    total, power = s.total_iters, s.power
    epochs = range(s.last_epoch + 1, _last(s, count, total) + 1)
    if not epochs:
        return _for_all(s, [])
    table = [((1.0 - t / total) / (1.0 - (t - 1) / total)) ** power for t in epochs]
    return _for_all(s, [_table(s, epochs, table)], _until(s, count, total))


def _last(s: Any, count: int, total: float) -> int:
    """Return the last of the next `count` epochs that does not lie after epoch `total`."""
    return (
        s.last_epoch + count if total >= FOREVER else min(s.last_epoch + count, math.floor(total))
    )


def _table(s: Any, epochs: range, table: Sequence[float], **form: Any) -> Segment:
    first = epochs[0] - s.last_epoch
    return Segment(first, first + len(epochs), x=[float(x) for x in table], **form)


def _until(s: Any, count: int, total: float) -> int:
    """Return the step to compile again at, for a schedule without maps after epoch `total`."""
    return FOREVER if s.last_epoch + count >= total else count + 1


def _cosine(s: Any, count: int) -> CompiledSchedule:
    t_max, low = s.T_max, float(s.eta_min)
    begin, end = s.last_epoch + 1, s.last_epoch + 1 + count
    # Leaving its minimum, where the recursion would divide by zero, torch adds a fixed climb.
    climbs = [t for t in range(begin, end) if (t - 1 - t_max) % (2 * t_max) == 0]
    pieces = []
    for first, last in zip([begin, *(t + 1 for t in climbs)], [*climbs, end], strict=True):
        if first < last:
            epochs = range(first, last)
            pieces.append(_table(s, epochs, _ratios(t_max, epochs), a=low, b=low))
    groups = []
    for base in s.base_lrs:
        climb = (base - low) * (1 - math.cos(math.pi / t_max)) / 2
        steps = [t - s.last_epoch for t in climbs]
        groups.append([*pieces, *(Segment(k, k + 1, x=1.0, b=climb) for k in steps)])
    return CompiledSchedule(groups, count + 1)


def _ratios(t_max: float, epochs: range) -> Sequence[float]:
    ones = [1 + math.cos(math.pi * t / t_max) for t in range(epochs[0] - 1, epochs[-1] + 1)]
    return [now / before for before, now in itertools.pairwise(ones)]


def _warm_restarts(s: Any, count: int) -> CompiledSchedule:
    now, period, epoch = s.T_cur, s.T_i, s.last_epoch
    ones = []
    for _ in range(count):
        if epoch < 0:
            epoch, now, period = 0, 0, s.T_0
        else:
            epoch, now = epoch + 1, now + 1
            if now >= period:
                now, period = now % period, period * s.T_mult
        ones.append(1 + math.cos(math.pi * now / period))
    low = float(s.eta_min)
    halves = [x / 2 for x in ones]
    groups = []
    for base in s.base_lrs:
        table = halves
        if 0 < abs(base - low) < 1e-280:  # halving last rounds differently there: to subnormals
            table = [low + (base - low) * x / 2 for x in ones]
            groups.append([Segment(1, count + 1, absolute=True, x=table, a=1.0)])
        else:
            groups.append([Segment(1, count + 1, absolute=True, x=table, a=base - low, b=low)])
    return CompiledSchedule(groups, count + 1)


def _cyclic(s: Any, count: int) -> CompiledSchedule:
    factors, scales, error = [], [], None
    for t in range(s.last_epoch + 1, s.last_epoch + count + 1):
        cycle = math.floor(1 + t / s.total_size)
        x = 1.0 + t / s.total_size - cycle
        try:
            scale = s.scale_fn(cycle if s.scale_mode == "cycle" else t)
            as_float("what CyclicLR(scale_fn=...) returns", scale)
        except Exception as failure:
            error = failure
            break
        factors.append(x / s.step_ratio if x <= s.step_ratio else (x - 1) / (s.step_ratio - 1))
        scales.append(scale)
    made: dict[float, list[float]] = {}

    def heights(height: float) -> list[float]:
        if height not in made:
            made[height] = [
                float(height * f * scale) for f, scale in zip(factors, scales, strict=True)
            ]
        return made[height]

    end = len(factors) + 1
    groups = []
    for i, (base, top) in enumerate(zip(s.base_lrs, s.max_lrs, strict=True)):
        own = [Segment(1, end, absolute=True, x=heights(top - base), a=1.0, b=float(base))]
        if s.cycle_momentum:
            base, top = s.base_momentums[i], s.max_momentums[i]
            own.append(
                Segment(
                    1, end, absolute=True, x=heights(top - base), a=-1.0, b=float(top),
                    momentum=True,
                )
            )  # fmt: skip
        groups.append(own)
    return CompiledSchedule(groups, end, error)


def _one_cycle(s: Any, count: int) -> CompiledSchedule:
    rows: list[list[Segment]] = [[] for _ in s.optimizer.param_groups]
    last = min(s.last_epoch + count, s.total_steps)
    first, start_step = s.last_epoch + 1, 0.0
    for i, phase in enumerate(s._schedule_phases):
        end_step = phase["end_step"]
        final = i == len(s._schedule_phases) - 1
        epochs = range(first, (last if final else min(last, math.floor(end_step))) + 1)
        if epochs and end_step == start_step:  # torch divides by the difference
            error = ValueError(f"OneCycleLR(pct_start=1.0) ends at step {epochs[0] - 1}")
            return CompiledSchedule(rows, epochs[0] - s.last_epoch, error)
        if epochs:
            first = epochs[-1] + 1
            pct = [(t - start_step) / (end_step - start_step) for t in epochs]
            linear = s._anneal_func_type == "linear"
            x = pct if linear else [math.cos(math.pi * p) + 1 for p in pct]
            for row, group in zip(rows, s.optimizer.param_groups, strict=True):
                for kind in ("lr", "momentum") if s.cycle_momentum else ("lr",):
                    start, end = group[phase[f"start_{kind}"]], group[phase[f"end_{kind}"]]
                    a, b = (end - start, start) if linear else ((start - end) / 2.0, end)
                    k, cycled = epochs[0] - s.last_epoch, kind == "momentum"
                    row.append(Segment(k, k + len(epochs), 1, True, x, float(a), float(b), cycled))
        start_step = end_step
    if s.last_epoch + count <= s.total_steps:
        return CompiledSchedule(rows, count + 1)
    error = ValueError(
        f"Tried to step {s.total_steps + 1} times. The specified number of total steps is "
        f"{s.total_steps}"
    )
    return CompiledSchedule(rows, s.total_steps - s.last_epoch + 1, error)


def _evaluated(s: Any, count: int) -> tuple[list[list[Any]], Exception | None]:
    """Call each group's lr_lambda for the next epochs; stop before one that raises."""
    begin, end = s.last_epoch + 1, s.last_epoch + count + 1
    values: dict[int, list[Any]] = {}
    error = None
    for function in s.lr_lambdas:
        if id(function) not in values:
            own = values[id(function)] = []
            for t in range(begin, end):
                try:
                    value = function(t)
                    as_float(f"what lr_lambda({t}) returns", value)
                except Exception as failure:
                    error, end = failure, t
                    break
                own.append(value)
    for own in values.values():
        del own[end - begin :]
    return [values[id(function)] for function in s.lr_lambdas], error


def _plain(value: Any) -> bool:
    return isinstance(value, (int, float))


def _lambda(s: Any, count: int) -> CompiledSchedule:
    tables, error = _evaluated(s, count)
    floats = {id(own): [float(v) for v in own] for own in tables}
    groups = []
    for own, base in zip(tables, s.base_lrs, strict=True):
        form: dict[str, Any] = {"x": floats[id(own)], "a": float(base)}
        if not all(map(_plain, own)):  # numpy scalars and tensors multiply by rules of their own
            form = {"x": [float(base * v) for v in own], "a": 1.0}
        groups.append([Segment(1, len(own) + 1, absolute=True, **form)])
    return CompiledSchedule(groups, len(tables[0]) + 1 if tables else FOREVER, error)


def _multiplicative(s: Any, count: int) -> CompiledSchedule:
    tables, error = _evaluated(s, count)
    length = min((len(own) for own in tables), default=0)
    for own in tables:
        for k, value in enumerate(own[:length]):
            if not _plain(value):
                length = k
                error = TypeError(
                    f"MultiplicativeLR(lr_lambda=...) must return a Python number, got {value!r} "
                    f"for epoch {s.last_epoch + 1 + k}"
                )
                break
    floats = {id(own): [float(v) for v in own[:length]] for own in tables}
    return CompiledSchedule(
        [[Segment(1, length + 1, x=floats[id(own)])] for own in tables], length + 1, error
    )


def _recorded(s: Any, count: int) -> CompiledSchedule:
    """Play back the tape of a scheduler that has no maps."""
    played = s.last_epoch - s.start
    end = min(count, s.total_steps - played) + 1
    groups: list[list[Segment]] = [[] for _ in s.optimizer.param_groups]
    for column, momentum in ((s.lrs, False), (s.momentums, True)):
        if column is not None:
            for group, x in zip(groups, column[played + 1 : played + end].T.tolist(), strict=True):
                group.append(Segment(1, end, absolute=True, x=x, a=1.0, momentum=momentum))
    return CompiledSchedule(groups, end, s.ended() if end <= count else None)


def restart(s: Any) -> CompiledSchedule:
    """Compile the step in which SequentialLR starts `s`, and set `s` to its epoch 0."""
    if isinstance(s, lr_scheduler.CosineAnnealingWarmRestarts) or hasattr(s, "_get_closed_form_lr"):
        s.last_epoch = 0
        s._get_lr_called_within_step = True
        values = (getattr(s, "_get_closed_form_lr", None) or s.get_lr)()
        s._get_lr_called_within_step = False
        return CompiledSchedule([[assign(value)] for value in values])
    s.last_epoch = -1
    compiled = MAPS[type(s)](s, 1)
    s.last_epoch = 0
    return compiled


MAPS: dict[type[LRScheduler], Callable[[Any, int], CompiledSchedule]] = {
    lr_scheduler.StepLR: _step,
    lr_scheduler.MultiStepLR: _multi_step,
    lr_scheduler.ConstantLR: _constant,
    lr_scheduler.LinearLR: _linear,
    lr_scheduler.ExponentialLR: _exponential,
    lr_scheduler.PolynomialLR: _polynomial,
    lr_scheduler.CosineAnnealingLR: _cosine,
    lr_scheduler.CosineAnnealingWarmRestarts: _warm_restarts,
    lr_scheduler.LambdaLR: _lambda,
    lr_scheduler.MultiplicativeLR: _multiplicative,
    lr_scheduler.CyclicLR: _cyclic,
    lr_scheduler.OneCycleLR: _one_cycle,
    Recorded: _recorded,
}
