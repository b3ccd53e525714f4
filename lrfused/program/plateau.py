"""ReduceLROnPlateau as rows of numbers: Plateau and PlateauState of csrc/plateau.h."""

from __future__ import annotations

from typing import Any

from ..checks.refusals import as_float


def plateau_row(s: Any, group: int) -> list[float]:
    """Return the row of a Plateau, for one of the scheduler's groups."""
    return [
        float(s.mode == "max"),
        float(s.threshold_mode == "abs"),
        *(_number(s, key) for key in ("factor", "patience", "threshold", "cooldown")),
        float(s.min_lrs[group]),
        float(s.eps),
        float(getattr(s, "accumulate", 1)),
        float(getattr(s, "nan", "bad") == "ignore"),
    ]


def plateau_state(s: Any) -> list[float]:
    """Return the row of a PlateauState."""
    mean = (getattr(s, "metric_sum", 0.0), getattr(s, "metric_count", 0))
    counted = (_number(s, key) for key in ("best", "num_bad_epochs", "cooldown_counter"))
    return [*counted, *map(float, mean)]


def _number(s: Any, key: str) -> float:
    return as_float(f"ReduceLROnPlateau({key}=...)", getattr(s, key))


def set_plateau_state(s: Any, state: list[float]) -> None:
    """Set the scheduler's state from the row of a PlateauState."""
    best, bad, cooldown, total, count = state
    s.best, s.num_bad_epochs, s.cooldown_counter = best, int(bad), _counted(cooldown)
    if hasattr(s, "accumulate"):  # without it the state has torch's entries alone
        s.metric_sum, s.metric_count = total, int(count)


def _counted(steps: float) -> float:
    """Return a count as the integer that it is; torch counts down from any number, and infinity."""
    return int(steps) if steps.is_integer() else steps
