"""Time a call on a GPU: on the device, on the host, and by the profiler, each in its own pass."""

from __future__ import annotations

import gc
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .events import Activity, flush_of, steps_of

FLUSHED = 256 * 2**20  # bytes written before a step, so that it finds a cold L2
COPIED = 512 * 2**20
LEAST = 3  # samples of a pass, whatever they cost
PROFILED = 10  # steps, at most
TRIES = 3  # traces, since a profiler may lose events
LONGEST_HOLD = 20_000.0  # us


class Machine:
    """Draw, compare and time on a GPU, or on the CPU in a rehearsal."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.gpu = device.type == "cuda"
        self._flushed = torch.empty(FLUSHED if self.gpu else 64, dtype=torch.uint8, device=device)
        self._cycles_per_us = self._clock() if self.gpu else 0.0
        self._flush: Counter[str] | None = None

    # -- tensors ---------------------------------------------------------------------------------

    def generator(self, seed: int) -> torch.Generator:
        """Make a generator of the device's own: the same seed draws the same numbers again."""
        return torch.Generator(self.device).manual_seed(seed)

    def differing(self, ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> int:
        """Count the values that differ in a bit, on the device."""
        integers = {8: torch.int64, 4: torch.int32, 2: torch.int16}
        count = torch.zeros((), dtype=torch.int64, device=self.device)
        for a, b in zip(ours, theirs, strict=True):
            count += (a.view(integers[a.itemsize]) != b.view(integers[b.itemsize])).sum()
        return int(count)

    # -- time ------------------------------------------------------------------------------------

    def wait(self) -> None:
        """Wait until the device is done; raise its error, if it has one."""
        if self.gpu:
            torch.cuda.synchronize()

    def clear(self) -> None:
        """Free unused memory; raise the error of the device, if it has one."""
        self.wait()
        gc.collect()
        if self.gpu:
            torch.cuda.empty_cache()

    def flush(self) -> None:
        """Leave nothing of the last step in the L2."""
        self._flushed.fill_(1)  # by a kernel; zeros might be a memset, as others make

    def host_us(self, call: Callable[[], object], rounds: int, seconds: float) -> list[float]:
        """Time the host's part alone: the device is idle and its queue is empty."""

        def once() -> float:
            self.wait()
            begin = time.perf_counter()
            call()
            return 1e6 * (time.perf_counter() - begin)

        samples = repeated(once, rounds, seconds)
        self.wait()
        return samples

    def device_us(
        self, call: Callable[[], object], rounds: int, seconds: float, host_us: float = 0.0
    ) -> list[float]:
        """Time the device's part by events, from a cold L2.

        The device is kept busy for longer than the host takes (`host_us`) to launch everything, so
        that it does not wait for the host between the events. On the CPU both parts are one.
        """
        if not self.gpu:
            return self.host_us(call, rounds, seconds)

        def once() -> float:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            self.wait()
            self._hold(min(LONGEST_HOLD, 100.0 + 1.5 * host_us))
            self.flush()
            begin.record()
            call()
            end.record()
            end.synchronize()
            return 1e3 * begin.elapsed_time(end)

        return repeated(once, rounds, seconds)

    def copied_per_us(self, rounds: int, seconds: float) -> float:
        """Measure the bytes read and written in a microsecond by a large copy."""
        numel = (COPIED if self.gpu else 2**18) // 4
        source = torch.ones(numel, device=self.device)
        to = torch.empty_like(source)
        to.copy_(source)
        samples = self.device_us(lambda: to.copy_(source), rounds, seconds)
        return 2 * 4 * numel / statistics.median(samples)

    # -- the profiler ----------------------------------------------------------------------------

    def work(self, call: Callable[[], object], rounds: int) -> tuple[list[Activity], int]:
        """Return the device's work in several calls, from a cold L2, and their number.

        Raises ValueError if no complete trace could be had.
        """
        rounds = min(rounds, PROFILED)

        def flush_and_call() -> None:
            self.flush()
            call()

        error = None
        for _ in range(TRIES):
            try:
                if self._flush is None:
                    self._flush = flush_of(self._trace(self.flush, LEAST), LEAST)
                return steps_of(self._trace(flush_and_call, rounds), self._flush, rounds), rounds
            except ValueError as incomplete:
                error = incomplete
        raise ValueError(f"none of {TRIES} traces is complete: {error}")

    def _trace(self, call: Callable[[], object], rounds: int) -> list[Activity]:
        from torch.profiler import ProfilerActivity, profile

        self.wait()
        with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as found:
            for _ in range(rounds):
                call()
            self.wait()
        return [Activity.of(event) for event in found.events()]

    # -- how long the device is kept busy ----------------------------------------------------------

    def _hold(self, us: float) -> None:
        torch.cuda._sleep(int(us * self._cycles_per_us))

    def _clock(self) -> float:
        """Measure the cycles in a microsecond."""
        cycles = 10_000_000
        for _ in range(2):  # the first loads the kernel
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            torch.cuda._sleep(cycles)
            end.record()
            end.synchronize()
        return cycles / (1e3 * begin.elapsed_time(end))


def repeated(once: Callable[[], float], rounds: int, seconds: float) -> list[float]:
    """Take `rounds` samples, fewer where they take longer than `seconds`, but some."""
    until = time.monotonic() + seconds
    samples: list[float] = []
    while len(samples) < rounds and (len(samples) < LEAST or time.monotonic() < until):
        samples.append(once())
    return samples
