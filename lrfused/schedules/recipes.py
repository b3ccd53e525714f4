"""Schedules that people write by hand, as compositions of torch's."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from .base import Schedule, at_least_one
from .compositions import SequentialLR
from .decays import LambdaLR, LinearLR
from .formula import Formula


def warmup(schedule: Schedule, steps: int, start_factor: float = 0.01) -> SequentialLR:
    """Raise the rate linearly for `steps` steps, then run any other schedule from its start.

    lr(t) = lr0 * (start_factor + (1 - start_factor) * t / steps) for t < steps, then
    schedule(t - steps). start_factor is in (0, 1].
    Source: gradual warmup, section 2.2 of https://arxiv.org/abs/1706.02677.
    """
    at_least_one("warmup", "steps", steps)
    return SequentialLR([LinearLR(start_factor, 1.0, steps), schedule], [steps])


def cosine_with_warmup(total_steps: int, warmup_steps: int, floor: float = 0.0) -> LambdaLR:
    """Raise the rate linearly, then anneal it along half a cosine to `floor` times it, and stay.

    lr(t) = lr0 * t / warmup_steps for t < warmup_steps; then, with
    x = min(1, (t - warmup_steps) / (total_steps - warmup_steps)),
    lr(t) = lr0 * (floor + (1 - floor) * (1 + cos(pi x)) / 2).
    Source: https://arxiv.org/abs/1608.03983 with the warmup and floor usual since; transformers'
    get_cosine_with_min_lr_schedule_with_warmup.
    """
    _check("cosine_with_warmup", warmup_steps, total_steps, total_steps - warmup_steps, floor)
    return LambdaLR(
        _WarmupStableDecay(total_steps, warmup_steps, total_steps - warmup_steps, "cosine", floor)
    )


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
    _check("warmup_stable_decay", warmup_steps, total_steps, decay_steps, floor)
    if decay not in _FALLS:
        raise ValueError(
            f"warmup_stable_decay(decay=...) must be one of {', '.join(map(repr, _FALLS))}, got "
            f"{decay!r}"
        )
    return LambdaLR(_WarmupStableDecay(total_steps, warmup_steps, decay_steps, decay, floor))


def inverse_sqrt(warmup_steps: int) -> LambdaLR:
    """Raise the rate linearly, then lower it with the square root of the steps, without end.

    lr(t) = lr0 * t / warmup_steps for t < warmup_steps, then lr0 * sqrt(warmup_steps / t).
    Source: section 5.3 of https://arxiv.org/abs/1706.03762, with lr0 as the peak.
    """
    at_least_one("inverse_sqrt", "warmup_steps", warmup_steps)
    return LambdaLR(_InverseSqrt(warmup_steps))


def _check(name: str, warmup_steps: int, total_steps: int, decay_steps: int, floor: float) -> None:
    at_least_one(name, "total_steps", total_steps)
    if warmup_steps < 0 or decay_steps < 1 or warmup_steps + decay_steps > total_steps:
        raise ValueError(
            f"{name}(...) must have warmup_steps of at least 0, at least one step of decay, and "
            f"total_steps for both, got warmup_steps={warmup_steps}, total_steps={total_steps}, "
            f"decay_steps={decay_steps}"
        )
    if not 0 <= floor <= 1:
        raise ValueError(f"{name}(floor=...) must be between 0 and 1, got {floor!r}")


_FALLS: dict[str, Callable[[float], float]] = {
    "linear": lambda x: 1 - x,
    "cosine": lambda x: (1 + math.cos(math.pi * x)) / 2,
    "1-sqrt": lambda x: 1 - math.sqrt(x),
}


@dataclass(frozen=True)
class _WarmupStableDecay(Formula):
    total_steps: int
    warmup_steps: int
    decay_steps: int
    decay: str
    floor: float

    def __call__(self, epoch: int) -> float:
        if epoch < self.warmup_steps:
            return epoch / self.warmup_steps
        x = (epoch - (self.total_steps - self.decay_steps)) / self.decay_steps
        fall = _FALLS[self.decay](min(1.0, max(0.0, x)))
        return self.floor + (1 - self.floor) * fall


@dataclass(frozen=True)
class _InverseSqrt(Formula):
    warmup_steps: int

    def __call__(self, epoch: int) -> float:
        if epoch < self.warmup_steps:
            return epoch / self.warmup_steps
        return math.sqrt(self.warmup_steps / epoch)
