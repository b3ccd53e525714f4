"""Time callables side by side, interleaved, so that one moment's noise falls on all of them."""

import gc
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import quantiles


@dataclass(frozen=True)
class Timing:
    """Hold the quartiles of one callable's samples, in milliseconds per call."""

    median: float
    low: float
    high: float
    samples: int

    @classmethod
    def of(cls, samples: Iterable[float]) -> "Timing":
        """Summarise at least two samples."""
        samples = list(samples)
        low, median, high = quantiles(samples, n=4, method="inclusive")
        return cls(median=median, low=low, high=high, samples=len(samples))

    @property
    def iqr(self) -> float:
        """Return the distance between the quartiles."""
        return self.high - self.low


@contextmanager
def collector_off() -> Iterator[None]:
    """Keep Python's garbage collector out of the measurement."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def interleave(
    calls: Mapping[str, Callable[[], object]],
    *,
    seconds: float,
    warm_up: int = 2,
    min_rounds: int = 5,
    max_rounds: int = 1_000,
    batch: int = 1,
    before: Mapping[str, Callable[[], object]] | None = None,
    between: Callable[[], object] | None = None,
) -> dict[str, list[float]]:
    """Time every callable once per round, for as many rounds as fit in `seconds`.

    Each round has a new order, so that none always follows the same neighbour's caches.
    A sample is the mean of `batch` calls in a row, in milliseconds. `before` has callables to call
    before a sample, and `between` is called before a round, untimed.
    """
    samples: dict[str, list[float]] = {name: [] for name in calls}
    prepare = before or {}

    def sample(name: str) -> float:
        if name in prepare:
            prepare[name]()
        return _sample(calls[name], batch)

    with collector_off():
        for _ in range(warm_up):
            for name in calls:
                sample(name)
        for names in orders(calls, seconds, min_rounds, max_rounds):
            if between is not None:
                between()
            for name in names:
                samples[name].append(sample(name))
    return samples


def orders(
    names: Iterable[str], seconds: float, min_rounds: int, max_rounds: int
) -> Iterator[list[str]]:
    """Generate the order of each round, drawn anew, for as many rounds as fit in `seconds`."""
    names = list(names)
    order = random.Random(0)
    begin = time.perf_counter()
    rounds = 0
    while rounds < min_rounds or (rounds < max_rounds and time.perf_counter() - begin < seconds):
        order.shuffle(names)
        yield list(names)
        rounds += 1


def _sample(call: Callable[[], object], batch: int) -> float:
    begin = time.perf_counter_ns()
    for _ in range(batch):
        call()
    return (time.perf_counter_ns() - begin) / batch / 1e6
