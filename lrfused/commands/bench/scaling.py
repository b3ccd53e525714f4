"""Time a step with one thread and with all of them, over models of more and more elements."""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from statistics import median
from typing import Any

import torch

from .cases import SCALING, Case
from .contenders import FUSED, LRFUSED, OWN, Contender
from .timing import Timing, interleave
from .validate import Truth

SCALERS = (LRFUSED, FUSED)
SAMPLE_MS = 1.0  # the least that a sample takes about: much more than the clock
MAX_BATCH = 20


def measure(threads: int, seconds: float, shrink: int) -> list[dict[str, Any]]:
    """Time lrfused and torch fused with 1 and with `threads` threads, in the same rounds.

    Returns, for each number of elements, quartiles in milliseconds, and the median of all rounds'
    ratios of the time with all threads to that with one.
    """
    return [_measure(case.shrunk(shrink), threads, seconds) for case in SCALING]


def _measure(case: Case, threads: int, seconds: float) -> dict[str, Any]:
    truth = Truth.of(case)
    rows: list[dict[str, Any]] = []
    everyone = {name: OWN[name](case) for name in SCALERS}
    distances = {name: truth.check(name, one) for name, one in everyone.items()}
    calls: dict[str, Callable[[], object]] = {}
    before: dict[str, Callable[[], object]] = {}
    for name, one in everyone.items():
        for number in (1, threads):
            calls[f"{name}, {number}"] = one.step
            before[f"{name}, {number}"] = partial(_with_threads, number, one)
    try:
        samples = interleave(
            calls,
            seconds=seconds,
            warm_up=1,
            min_rounds=3,
            max_rounds=300,
            before=before,
            batch=_batch(everyone[LRFUSED]),
        )
    finally:
        torch.set_num_threads(threads)
    for name in everyone:
        alone, together = samples[f"{name}, 1"], samples[f"{name}, {threads}"]
        rows.append(
            {
                "name": name,
                "distance": asdict(distances[name]),
                "one": asdict(Timing.of(alone)),
                "all": asdict(Timing.of(together)),
                "ratio": median(b / a for a, b in zip(alone, together, strict=True)),
            }
        )
    return {
        "title": case.title,
        "threads": threads,
        "tensors": len(case.shapes),
        "elements": case.elements,
        "rows": rows,
    }


def _with_threads(number: int, contender: Contender) -> None:
    """Set the number of threads, then step untimed, so that the threads are there."""
    torch.set_num_threads(number)
    contender.step()


def _batch(contender: Contender) -> int:
    took = interleave({"": contender.step}, seconds=0, warm_up=1, min_rounds=3)[""]
    return max(1, min(MAX_BATCH, round(SAMPLE_MS / min(took))))
