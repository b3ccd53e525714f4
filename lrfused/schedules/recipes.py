"""Schedules that people write by hand, as compositions of torch's."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from ..checks.numbers import number
from .arguments import count
from .base import Schedule
from .compositions import SequentialLR
from .decays import LambdaLR, LinearLR
from .lr_lambda import LRLambda


def warmup(schedule: Schedule, steps: int, start_factor: float = 0.01) -> SequentialLR:
    """Raise the rate linearly for `steps` steps, then run any other schedule from its start.

    lr(t) = lr0 * (start_factor + (1 - start_factor) * t / steps) for t < steps, then
    schedule(t - steps). start_factor is in (0, 1].
    Source: gradual warmup, section 2.2 of https://arxiv.org/abs/1706.02677.
    """
    steps = count("warmup", "steps", steps)
    return SequentialLR([LinearLR(start_factor, 1.0, steps), schedule], [steps])


def cosine_with_warmup(total_steps: int, warmup_steps: int, floor: float = 0.0) -> LambdaLR:
    """Raise the rate linearly, then anneal it along half a cosine to `floor` times it, and stay.

    lr(t) = lr0 * t / warmup_steps for t < warmup_steps; then, with
    x = min(1, (t - warmup_steps) / (total_steps - warmup_steps)),
    lr(t) = lr0 * (floor + (1 - floor) * (1 + cos(pi x)) / 2).
    Source: https://arxiv.org/abs/1608.03983 with the warmup and floor usual since; transformers'
    get_cosine_with_min_lr_schedule_with_warmup.
    """
    return LambdaLR(_shaped("cosine_with_warmup", total_steps, warmup_steps, None, "cosine", floor))


def warmup_stable_decay(
    total_steps: int,
    warmup_steps: int,
    decay_steps: int,
    decay: Literal["linear", "cosine", "1-sqrt"] = "linear",
    floor: float = 0.0,
) -> LambdaLR:
    """Raise the rate linearly, hold it, and lower it to `floor` times it in the last steps.

    lr(t) = lr0 * t / warmup_steps for t < warmup_steps; lr0 until total_steps - decay_steps; then,
    with x = min(1, (t - (total_steps - decay_steps)) / decay_steps),
    lr(t) = lr0 * (floor + (1 - floor) * f(x)), where f(x) is 1 - x for "linear",
    (1 + cos(pi x)) / 2 for "cosine" and 1 - sqrt(x) for "1-sqrt".
    Source: https://arxiv.org/abs/2404.06395 (WSD), https://arxiv.org/abs/2405.18392 (1-sqrt).
    """
    if decay not in _FALLS:
        raise ValueError(
            f"warmup_stable_decay(decay=...) must be one of {', '.join(map(repr, _FALLS))}, got "
            f"{decay!r}"
        )
    return LambdaLR(
        _shaped("warmup_stable_decay", total_steps, warmup_steps, decay_steps, decay, floor)
    )


def inverse_sqrt(warmup_steps: int) -> LambdaLR:
    """Raise the rate linearly, then lower it with the square root of the steps, without end.

    lr(t) = lr0 * t / warmup_steps for t < warmup_steps, then lr0 * sqrt(warmup_steps / t).
    Source: section 5.3 of https://arxiv.org/abs/1706.03762, with lr0 as the peak.
    """
    return LambdaLR(_InverseSqrt(count("inverse_sqrt", "warmup_steps", warmup_steps)))


def _shaped(
    name: str, total_steps: Any, warmup_steps: Any, decay_steps: Any, decay: str, floor: Any
) -> _WarmupStableDecay:
    """Return the formula of checked arguments; without `decay_steps` all that are left decay."""
    total = count(name, "total_steps", total_steps)
    rise = number(f"{name}(warmup_steps=...)", warmup_steps)
    fall = total - rise
    if decay_steps is not None:
        fall = number(f"{name}(decay_steps=...)", decay_steps)
    low = number(f"{name}(floor=...)", floor)
    if not (rise >= 0 and fall >= 1 and rise + fall <= total):
        raise ValueError(
            f"{name}(...) must have warmup_steps of at least 0, at least one step of decay, and "
            f"total_steps for both, got warmup_steps={rise}, total_steps={total}, "
            f"decay_steps={fall}"
        )
    if not 0 <= low <= 1:
        raise ValueError(f"{name}(floor=...) must be between 0 and 1, got {floor!r}")
    return _WarmupStableDecay(total, rise, fall, decay, low)


_FALLS: dict[str, Callable[[float], float]] = {
    "linear": lambda x: 1 - x,
    "cosine": lambda x: (1 + math.cos(math.pi * x)) / 2,
    "1-sqrt": lambda x: 1 - math.sqrt(x),
}


@dataclass(frozen=True)
class _WarmupStableDecay(LRLambda):
    total_steps: float
    warmup_steps: float
    decay_steps: float
    decay: str
    floor: float

    def __call__(self, epoch: int) -> float:
        if epoch < self.warmup_steps:
            return epoch / self.warmup_steps
        x = (epoch - (self.total_steps - self.decay_steps)) / self.decay_steps
        fall = _FALLS[self.decay](min(1.0, max(0.0, x)))
        return self.floor + (1 - self.floor) * fall


@dataclass(frozen=True)
class _InverseSqrt(LRLambda):
    warmup_steps: float

    def __call__(self, epoch: int) -> float:
        if epoch < self.warmup_steps:
            return epoch / self.warmup_steps
        return math.sqrt(self.warmup_steps / epoch)
