"""Record schedulers of unknown classes: run them ahead, and keep the rates that they set."""

from __future__ import annotations

import random
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim import SGD, Optimizer

from ..checks.numbers import number
from ..checks.refusals import as_float, check_epoch
from ..outside_modes import outside_modes, tensor, zeros
from .guard import Guard
from .recorded import Recorded
from .snapshot import Snapshot

_TAPED = ("lr", "momentum")
_FIXED = ("dampening", "weight_decay", "nesterov", "maximize")
_NOT_COMPARED = {*_TAPED, *_FIXED, "params", "initial_lr"}


def record(optimizer: SGD, schedulers: Sequence[Any], total_steps: int) -> Recorded:
    """Run the schedulers ahead on their optimizer, put both back, and return the tape.

    Raises ValueError, naming the scheduler and the step, for one that fails; its own error is the
    cause. Raises ValueError for one that moves a setting that no tape has, adds a group, or writes
    parameters, gradients or the optimizer's state.
    """
    name = ", ".join(type(s).__name__ for s in schedulers)
    rows, before = [_numbers(optimizer)], _others(optimizer)
    last_epoch = number(f"{name}.last_epoch", getattr(schedulers[0], "last_epoch", 0))
    check_epoch(f"fuse(scheduler=...): {name}.last_epoch", last_epoch)
    bases = [
        as_float("initial_lr", group.get("initial_lr", group["lr"]))
        for group in optimizer.param_groups
    ]
    guard = Guard(optimizer)
    with _put_back(guard, optimizer, *schedulers):
        for step in range(1, total_steps + 1):
            for s in schedulers:
                try:
                    with guard:
                        s.step()
                    row = _numbers(optimizer)
                except Exception as error:
                    _check(s, step, guard, optimizer, len(bases), error)
                    raise ValueError(
                        f"{type(s).__name__} fails at step {step} of the total_steps={total_steps} "
                        f"that fuse() records: {type(error).__name__}: {error}"
                    ) from error
                _check(s, step, guard, optimizer, len(bases))
            rows.append(row)
            for key in _FIXED:
                if row[key] != rows[0][key]:
                    raise ValueError(f"{name} moves {key!r}, which cannot be recorded")
        written = sorted(_others(optimizer) - before, key=str)
    if written:
        entries = ", ".join(sorted({repr(key) for _, key, _ in written}))
        warnings.warn(
            f"{name} writes {entries} into param_groups: after fuse() these entries stay as they "
            "are, since only rates and momenta are recorded",
            stacklevel=4,
        )
    return _recorded(name, rows, bases, last_epoch)


def _check(
    scheduler: Any,
    step: int,
    guard: Guard,
    optimizer: Optimizer,
    groups: int,
    cause: Exception | None = None,
) -> None:
    """Raise ValueError if a step did more than set entries of the groups."""
    written = guard.written(optimizer)
    if written is not None:
        act = f"writes {written}"
    elif len(optimizer.param_groups) > groups:
        act = "adds a param group"
    elif len(optimizer.param_groups) < groups:
        act = "removes a param group"
    else:
        return
    raise ValueError(
        f"{type(scheduler).__name__} {act} at step {step}, which cannot be recorded: fuse() "
        "records rates and momenta alone; do this outside the scheduler"
    ) from cause


@outside_modes
def _recorded(
    name: str, rows: list[dict[str, list[float]]], bases: list[float], last_epoch: float
) -> Recorded:
    tapes = {key: tensor([row[key] for row in rows], torch.float64) for key in _TAPED}
    cycles = bool((tapes["momentum"] != tapes["momentum"][0]).any())
    pairs = zip(*(rows[0][key] for key in _TAPED), bases, strict=True)
    stand_in = SGD(
        [
            {"params": [zeros(0)], "lr": lr, "momentum": momentum, "initial_lr": base}
            for lr, momentum, base in pairs
        ]
    )
    return Recorded(stand_in, name, tapes["lr"], tapes["momentum"] if cycles else None, last_epoch)


def _numbers(optimizer: Optimizer) -> dict[str, list[float]]:
    return {
        key: [as_float(key, group.get(key, 0)) for group in optimizer.param_groups]
        for key in (*_TAPED, *_FIXED)
    }


def _others(optimizer: Optimizer) -> set[tuple[int, str, Any]]:
    """Return the numbers and strings that the groups have beside SGD's settings."""
    return {
        (i, key, value)
        for i, group in enumerate(optimizer.param_groups)
        for key, value in group.items()
        if key not in _NOT_COMPARED and isinstance(value, (bool, int, float, str))
    }


@contextmanager
def _put_back(guard: Guard, *roots: Any) -> Iterator[None]:
    """Afterwards put the objects back, and the process's generators of random numbers."""
    numpy = sys.modules.get("numpy")
    kept, state = Snapshot(*roots), random.getstate()
    of_numpy = None if numpy is None else numpy.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of schedulers that step before the optimizer
            yield
    finally:
        random.setstate(state)
        if numpy is not None:
            numpy.random.set_state(of_numpy)
        kept.restore()
        guard.restore()
