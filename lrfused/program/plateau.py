"""ReduceLROnPlateau as the row of numbers that csrc/schedule.h's Plateau holds, and its state."""

from __future__ import annotations

from typing import Any


def plateau_row(s: Any, group: int) -> list[float]:
    """Return what csrc/schedule.h's Plateau holds, for one of the scheduler's groups."""
    return [
        float(s.mode == "max"),
        float(s.threshold_mode == "abs"),
        *(float(x) for x in (s.factor, s.patience, s.threshold, s.cooldown)),
        float(s.min_lrs[group]),
        float(s.eps),
        float(getattr(s, "accumulate", 1)),
        float(getattr(s, "nan", "bad") == "ignore"),
    ]


def plateau_state(s: Any) -> list[float]:
    """Return what csrc/schedule.h's PlateauState holds."""
    mean = (getattr(s, "metric_sum", 0.0), getattr(s, "metric_count", 0))
    return [float(x) for x in (s.best, s.num_bad_epochs, s.cooldown_counter, *mean)]


def set_plateau_state(s: Any, state: list[float]) -> None:
    """Give the scheduler what csrc/schedule.h's PlateauState holds."""
    best, bad, cooldown, total, count = state
    s.best, s.num_bad_epochs, s.cooldown_counter = best, int(bad), int(cooldown)
    if hasattr(s, "accumulate"):  # torch's own state otherwise, and nothing else
        s.metric_sum, s.metric_count = total, int(count)
