"""Measure the time that a schedule adds to a step, beside torch's `scheduler.step()`."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch.optim import lr_scheduler

import lrfused

from .contenders import fastest
from .timing import Timing, interleave

LEARNING_RATE = 0.1
VALIDATION_STEPS = 200
BATCH = 50
SCHEDULES: dict[str, dict[str, float]] = {
    "StepLR": {"step_size": 30, "gamma": 0.99},
    "CosineAnnealingLR": {"T_max": 1_000},
    "ReduceLROnPlateau": {"factor": 0.99, "patience": 5},
}


def measure(seconds: float) -> list[dict[str, Any]]:
    """Time, per schedule, a step without and with it, for lrfused and for torch.

    The parameter is tiny, so that nothing else hides the schedule. The time that a schedule adds is
    the difference of two steps in both, since a call repeated alone is faster than in a loop. A
    plateau is fed the same loss, a tensor, in both.
    """
    results = []
    for name in SCHEDULES:
        _validate(name)
        calls = {
            "without": _fused(None)[1],
            "with": _fused(name)[1],
            "torch without": _torch(None)[1],
            "torch with": _torch(name)[1],
        }
        samples = interleave(calls, seconds=seconds, batch=BATCH, max_rounds=5_000)
        timings = {key: asdict(Timing.of(values)) for key, values in samples.items()}
        results.append({"name": name, **timings})
    return results


def _tiny() -> list[torch.Tensor]:
    parameter = torch.ones(64, requires_grad=True)
    parameter.grad = torch.ones(64)
    return [parameter]


def _fused(name: str | None) -> tuple[torch.optim.Optimizer, Callable[[], object]]:
    schedule = None if name is None else getattr(lrfused, name)(**SCHEDULES[name])
    optimizer = lrfused.FusedDecaySGD(
        _tiny(), lr=LEARNING_RATE, momentum=0.9, schedule=schedule, backend=fastest()
    )
    if name != "ReduceLROnPlateau":
        return optimizer, optimizer.step
    loss = torch.tensor(1.0)
    scheduler = optimizer.scheduler

    def step() -> None:
        optimizer.step()
        scheduler.step(loss)

    return optimizer, step


def _torch(name: str | None) -> tuple[torch.optim.Optimizer, Callable[[], object]]:
    optimizer = torch.optim.SGD(_tiny(), lr=LEARNING_RATE, momentum=0.9)
    if name is None:
        return optimizer, optimizer.step
    scheduler = getattr(lr_scheduler, name)(optimizer, **SCHEDULES[name])
    arguments = (torch.tensor(1.0),) if name == "ReduceLROnPlateau" else ()

    def step() -> None:
        optimizer.step()
        scheduler.step(*arguments)

    return optimizer, step


def _validate(name: str) -> None:
    """Compare the rates of every step as bits."""
    fused_optimizer, fused_step = _fused(name)
    torch_optimizer, torch_step = _torch(name)
    for step in range(1, VALIDATION_STEPS + 1):
        fused_step()
        torch_step()
        rates = [float(o.param_groups[0]["lr"]) for o in (fused_optimizer, torch_optimizer)]
        if rates[0].hex() != rates[1].hex():
            raise AssertionError(f"{name}: rates differ after step {step}: {rates}")
