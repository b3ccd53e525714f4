"""The milestones and the end of a schedule."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from ...schedules import Schedule

MANY = 100  # marks of one schedule; more could not be told apart


def marks(schedule: Any, steps: int) -> Iterator[tuple[int, str]]:
    """Yield (step, label) where a part of the schedule begins or ends, below `steps`."""
    found = ((round(step), what) for step, what in _marks(schedule, steps))
    yield from ((step, what) for step, what in found if 0 < step < steps)


def _marks(s: Any, steps: int) -> Iterator[tuple[float, str]]:
    match type(s).__name__:
        case "StepLR":
            for k in range(1, min(MANY, steps // s.step_size) + 1):
                yield k * s.step_size, f"x {s.gamma:g}"
        case "MultiStepLR":
            for milestone in sorted(set(s.milestones))[:MANY]:
                yield milestone, f"x {s.gamma ** s.milestones.count(milestone):g}"
        case "ConstantLR" | "LinearLR" | "PolynomialLR":
            yield s.total_iters, "total_iters"
        case "CosineAnnealingLR":
            for k in range(1, min(MANY, steps // s.T_max) + 1):
                yield k * s.T_max, "T_max" if k == 1 else f"{k} T_max"
        case "CosineAnnealingWarmRestarts":
            step, length = s.T_0, s.T_0
            for _ in range(MANY):
                yield step, "restart"
                length *= s.T_mult
                step += length
        case "CyclicLR":
            up = s.step_size_up
            cycle = up + (up if s.step_size_down is None else s.step_size_down)
            for k in range(MANY // 2):
                yield k * cycle + up, "peak"
                yield (k + 1) * cycle, "cycle"
        case "OneCycleLR":
            total = _total_steps(s)
            up = s.pct_start * total - 1
            yield up, "peak"
            if s.three_phase:
                yield 2 * up, "initial rate"
        case "LambdaLR":
            f = s.lr_lambda
            if hasattr(f, "warmup_steps"):
                yield f.warmup_steps, "warmup ends"
            if hasattr(f, "total_steps"):
                yield f.total_steps - f.decay_steps, "decay begins"
                yield f.total_steps, "total_steps"
        case "SequentialLR":
            starts = [0, *s.milestones]
            for (begin, end), member in zip(pairwise([*starts, steps]), s.schedulers, strict=False):
                if begin:
                    yield begin, f"{type(member).__name__} begins"
                for step, what in marks(member, min(end, steps) - begin):
                    yield begin + step, what
        case "ChainedScheduler":
            for member in s.schedulers:
                yield from marks(member, steps)


def end(schedule: Any) -> int | None:
    """Return the steps to draw, to a schedule's end or some of its cycles; None if unknown."""
    s = schedule
    match type(s).__name__:
        case "StepLR":
            return 4 * int(s.step_size)
        case "MultiStepLR":
            return _and_a_bit(max(s.milestones)) if s.milestones else None
        case "ConstantLR" | "LinearLR" | "PolynomialLR":
            return _and_a_bit(s.total_iters)
        case "CosineAnnealingLR":
            return int(s.T_max) + 1
        case "CosineAnnealingWarmRestarts":
            return int(s.T_0 * (1 + s.T_mult + s.T_mult**2)) + 1
        case "CyclicLR":
            down = s.step_size_up if s.step_size_down is None else s.step_size_down
            return int(2 * (s.step_size_up + down)) + 1
        case "OneCycleLR":
            return _total_steps(s)
        case "LambdaLR":
            f = s.lr_lambda
            if hasattr(f, "total_steps"):
                return int(f.total_steps) + 1
            return 10 * int(f.warmup_steps) if hasattr(f, "warmup_steps") else None
        case "SequentialLR":
            start = int(s.milestones[-1]) if s.milestones else 0
            return start + (end(s.schedulers[-1]) or max(start, 100))
        case "ChainedScheduler":
            return last_end(s.schedulers)
    return None


def last_end(schedules: list[Schedule] | tuple[Schedule, ...]) -> int | None:
    """Return the latest end of schedules that run together; a OneCycleLR ends all of them."""
    ends = [(end(s), type(s).__name__ == "OneCycleLR") for s in schedules]
    hard = [e for e, is_hard in ends if is_hard and e is not None]
    return min(hard) if hard else max((e for e, _ in ends if e is not None), default=None)


def _total_steps(s: Any) -> int:
    return int(s.total_steps if s.total_steps is not None else s.epochs * s.steps_per_epoch)


def _and_a_bit(steps: float) -> int:
    """Return a quarter more steps, to show the rate after the end."""
    return int(steps * 1.25) + 1
