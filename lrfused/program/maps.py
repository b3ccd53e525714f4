"""The affine maps of each of torch's schedulers, from the state it is in.

Each function compiles the next `count` steps. A step of torch's first increments the epoch, then
computes the rates at that epoch; `t` is that epoch here.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any

from torch.optim import lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from ..checks.refusals import as_float
from .epochs import advanced, ahead, are_whole, tabulate, up_to
from .recorded import Recorded
from .segment import FOREVER, CompiledSchedule, Segment, assign


def _for_all(
    s: Any, segments: list[Segment], until: int = FOREVER, error: Exception | None = None
) -> CompiledSchedule:
    return CompiledSchedule([segments for _ in s.optimizer.param_groups], until, error)


def _each(
    s: Any, epochs: Sequence[float], factor: Callable[[float], float], until: int
) -> CompiledSchedule:
    """Multiply by factor(t) at each of these epochs, which are the next."""
    table, error = tabulate(lambda t: float(factor(t)), epochs)
    segments = [Segment(1, len(table) + 1, x=table)] if table else []
    return _for_all(s, segments, until if error is None else len(table) + 1, error)


def _step(s: Any, count: int) -> CompiledSchedule:
    if not abs(s.step_size) < FOREVER:
        return _for_all(s, [])
    if s.step_size == 0 or not are_whole(s.last_epoch, s.step_size):
        gamma, size = s.gamma, s.step_size
        epochs = ahead(s.last_epoch, count)
        return _each(s, epochs, lambda t: 1.0 if t == 0 or t % size != 0 else gamma, count + 1)
    # An integer is a multiple of p / q if it is one of p, and of -p if it is one of p.
    size = abs(Fraction(s.step_size).numerator)
    first = size - s.last_epoch % size
    gamma, zero = float(s.gamma), -s.last_epoch
    if not first <= zero < FOREVER - size:
        return _for_all(s, [Segment(first, FOREVER, every=size, x=gamma)])
    # Epoch 0 is a multiple at which torch does nothing.
    after = Segment(zero + size, FOREVER, every=size, x=gamma)
    before = [Segment(first, zero, every=size, x=gamma)] if first < zero else []
    return _for_all(s, [*before, after])


def _multi_step(s: Any, count: int) -> CompiledSchedule:
    if not are_whole(s.last_epoch):
        epochs = ahead(s.last_epoch, count)
        return _each(s, epochs, lambda t: s.gamma ** s.milestones.get(t, 0), count + 1)
    return _at(s, {m: functools.partial(pow, s.gamma, n) for m, n in s.milestones.items()})


def _exponential(s: Any, count: int) -> CompiledSchedule:
    return _for_all(s, [Segment(1, FOREVER, x=float(s.gamma))])


def _at(s: Any, factors: dict[float, Callable[[], float]]) -> CompiledSchedule:
    """Multiply by a factor at each of these epochs, if it is still to come."""
    whole = ((t, factor) for t, factor in factors.items() if abs(t) < math.inf and t == int(t))
    steps = sorted((int(t) - s.last_epoch, i, factor) for i, (t, factor) in enumerate(whole))
    segments = []
    for k, _, factor in steps:
        if 1 <= k < FOREVER:
            try:
                segments.append(Segment(k, k + 1, x=float(factor())))
            except Exception as error:
                return _for_all(s, segments, k, error)
    return _for_all(s, segments)


def _constant(s: Any, count: int) -> CompiledSchedule:
    factor, total = s.factor, s.total_iters
    if are_whole(s.last_epoch):
        return _at(s, {total: lambda: 1.0 / factor, 0: lambda: factor})

    def at(t: float) -> float:
        return factor if t == 0 else 1.0 / factor if t == total else 1.0

    return _each(s, ahead(s.last_epoch, count), at, count + 1)


def _linear(s: Any, count: int) -> CompiledSchedule:
    start, end, total = s.start_factor, s.end_factor, s.total_iters

    def factor(t: float) -> float:
        if t == 0:
            return float(start)
        return float(1.0 + (end - start) / (total * start + (t - 1) * (end - start)))

    return _until(s, count, max(total, 0), factor)


def _polynomial(s: Any, count: int) -> CompiledSchedule:
    total, power = s.total_iters, s.power

    def factor(t: float) -> float:
        return float(((1.0 - t / total) / (1.0 - (t - 1) / total)) ** power)

    return _until(s, count, total, factor)


def _until(s: Any, count: int, total: float, factor: Callable[[float], float]) -> CompiledSchedule:
    """Multiply by factor(t) at each epoch up to epoch `total`, and do nothing after it."""
    epochs = ahead(s.last_epoch, count)
    return _each(s, up_to(epochs, total), factor, FOREVER if epochs[-1] >= total else count + 1)


def _cosine(s: Any, count: int) -> CompiledSchedule:
    t_max, low = s.T_max, float(s.eta_min)

    def ratio(t: float) -> float | None:
        """Return None where torch adds a fixed climb: leaving its minimum it would divide by 0."""
        if (t - 1 - t_max) % (2 * t_max) == 0:
            return None
        return float(
            (1 + math.cos(math.pi * t / t_max)) / (1 + math.cos(math.pi * (t - 1) / t_max))
        )

    ratios, error = tabulate(ratio, ahead(s.last_epoch, count))
    pieces: list[Segment] = []
    climbs: list[int] = []
    k = 1
    for climbing, run in itertools.groupby(ratios, key=lambda x: x is None):
        piece = list(run)
        if climbing:
            climbs += range(k, k + len(piece))
        else:
            pieces.append(Segment(k, k + len(piece), x=piece, a=low, b=low))  # type: ignore[arg-type]
        k += len(piece)
    groups = []
    for base in s.base_lrs:
        own = list(pieces)
        if climbs:
            climb = (base - low) * (1 - math.cos(math.pi / t_max)) / 2
            own += [Segment(k, k + 1, x=1.0, b=climb) for k in climbs]
        groups.append(own)
    return CompiledSchedule(groups, len(ratios) + 1, error)


def restarted(now: Any, period: Any, mult: Any, steps: int = 1) -> tuple[Any, Any]:
    """Return T_cur and T_i of CosineAnnealingWarmRestarts so many steps later."""
    whole = isinstance(now, int) and isinstance(period, int) and mult == 1
    for done in range(steps):
        if whole and 0 <= now < period:
            return (now + steps - done) % period, period
        now = now + 1
        if now >= period:
            now, period = now % period, period * mult
    return now, period


def _warm_restarts(s: Any, count: int) -> CompiledSchedule:
    now, period, fresh = s.T_cur, s.T_i, s.last_epoch < 0
    ones: list[float] = []
    error = None
    for _ in range(count):
        try:
            now, period = (0, s.T_0) if fresh else restarted(now, period, s.T_mult)
            ones.append(1 + math.cos(math.pi * now / period))
        except Exception as failure:
            error = failure
            break
        fresh = False
    low, end = float(s.eta_min), len(ones) + 1
    halves = [x / 2 for x in ones]
    groups = []
    for base in s.base_lrs:
        table = halves
        if 0 < abs(base - low) < 1e-280:  # halving last rounds differently there: to subnormals
            table = [low + (base - low) * x / 2 for x in ones]
            groups.append([Segment(1, end, absolute=True, x=table, a=1.0)])
        else:
            groups.append([Segment(1, end, absolute=True, x=table, a=base - low, b=low)])
    return CompiledSchedule(groups, end, error)


def _cyclic(s: Any, count: int) -> CompiledSchedule:
    def at(t: float) -> tuple[float, float]:
        """Return torch's scale_factor, and what its scale_fn returns."""
        cycle = math.floor(1 + t / s.total_size)
        x = 1.0 + t / s.total_size - cycle
        factor = x / s.step_ratio if x <= s.step_ratio else (x - 1) / (s.step_ratio - 1)
        scale = s.scale_fn(cycle if s.scale_mode == "cycle" else t)
        as_float("what CyclicLR(scale_fn=...) returns", scale)
        return factor, scale

    factors, error = tabulate(at, ahead(s.last_epoch, count))
    made: dict[float, list[float]] = {}

    def heights(height: float) -> list[float]:
        if height not in made:
            made[height] = [float(height * f * scale) for f, scale in factors]
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
    step = 1
    epochs = up_to(ahead(s.last_epoch, count), s.total_steps)
    if s._anneal_func_type not in ("cos", "linear"):
        raise ValueError(f"Unknown _anneal_func_type: {s._anneal_func_type}")
    linear = s._anneal_func_type == "linear"
    for phase, start_step, own in _phases(s, epochs):
        end_step = phase["end_step"]
        if end_step == start_step:  # torch divides by the difference
            error = ValueError(f"OneCycleLR(pct_start=1.0) ends at step {own[0] - 1}")
            return CompiledSchedule(rows, step, error)
        pct = [(t - start_step) / (end_step - start_step) for t in own]
        x = pct if linear else [math.cos(math.pi * p) + 1 for p in pct]
        for row, group in zip(rows, s.optimizer.param_groups, strict=True):
            for kind in ("lr", "momentum") if s.cycle_momentum else ("lr",):
                start, end = group[phase[f"start_{kind}"]], group[phase[f"end_{kind}"]]
                a, b = (end - start, start) if linear else ((start - end) / 2.0, end)
                cycled = kind == "momentum"
                row.append(Segment(step, step + len(own), 1, True, x, float(a), float(b), cycled))
        step += len(own)
    if step > count:
        return CompiledSchedule(rows, step)
    error = ValueError(
        f"Tried to step {advanced(s.last_epoch, step)} times. The specified number of total steps "
        f"is {s.total_steps}"
    )
    return CompiledSchedule(rows, step, error)


def _phases(
    s: Any, epochs: Sequence[float]
) -> Iterator[tuple[dict[str, Any], float, Sequence[float]]]:
    """Yield each phase of OneCycleLR that has some of these epochs, its start, and those epochs."""
    start_step = 0.0
    for phase in s._schedule_phases[:-1]:
        own = up_to(epochs, phase["end_step"])
        if own:
            yield phase, start_step, own
        epochs, start_step = epochs[len(own) :], phase["end_step"]
    if epochs:
        yield s._schedule_phases[-1], start_step, epochs


def _evaluated(s: Any, count: int) -> tuple[list[list[Any]], Exception | None]:
    """Call each group's lr_lambda for the next epochs; stop before one that raises."""
    epochs = ahead(s.last_epoch, count)
    values: dict[int, list[Any]] = {}
    error = None
    for function in s.lr_lambdas:
        if id(function) not in values:
            own, failure = tabulate(functools.partial(_called, function), epochs)
            values[id(function)] = own
            if failure is not None:
                error, epochs = failure, epochs[: len(own)]
    for own in values.values():
        del own[len(epochs) :]
    return [values[id(function)] for function in s.lr_lambdas], error


def _called(function: Callable[[float], Any], t: float) -> Any:
    value = function(t)
    as_float(f"what lr_lambda({t}) returns", value)
    return value


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
                    f"for epoch {advanced(s.last_epoch, k + 1)}"
                )
                break
    floats = {id(own): [float(v) for v in own[:length]] for own in tables}
    return CompiledSchedule(
        [[Segment(1, length + 1, x=floats[id(own)])] for own in tables], length + 1, error
    )


def _recorded(s: Any, count: int) -> CompiledSchedule:
    """Play back the tape of a scheduler that has no maps."""
    played = s.played
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
