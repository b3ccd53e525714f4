"""The work of optimizer steps, picked out of a profiler's events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

WORK = ("kernel", "gpu_memcpy", "gpu_memset")  # kineto's names for what a device executes


@dataclass(frozen=True)
class Activity:
    """One event of a profiler; `kind` is kineto's name of its type, None in a torch without it."""

    name: str
    on_device: bool
    annotation: bool  # a range that a user named, which kineto repeats on the device's time line
    kind: str | None
    us: float

    @classmethod
    def of(cls, event: Any) -> Activity:
        """Read one of the events that `torch.profiler.profile.events()` returns."""
        return cls(
            name=event.name,
            on_device=event.device_type.name == "CUDA",
            annotation=bool(event.is_user_annotation),
            kind=getattr(event, "activity_type", None),
            us=event.time_range.elapsed_us(),
        )

    @property
    def is_work(self) -> bool:
        """Return whether the device executed a kernel, a copy or a memset."""
        known = self.kind in WORK if self.kind else True
        return self.on_device and known and not self.annotation


def flush_of(recorded: Iterable[Activity], rounds: int) -> Counter[str]:
    """Count the kernels of one flush, by name, from a trace of `rounds` flushes and nothing else.

    Raises ValueError if the trace does not hold the same work `rounds` times.
    """
    found = Counter(a.name for a in recorded if a.is_work)
    if not found or any(count % rounds for count in found.values()):
        raise ValueError(f"{rounds} flushes were recorded as {dict(found)}")
    return Counter({name: count // rounds for name, count in found.items()})


def steps_of(recorded: Iterable[Activity], flush: Counter[str], rounds: int) -> list[Activity]:
    """Return the work of `rounds` steps, from a trace in which one flush precedes each.

    Raises ValueError if there is more or less of the flushes' work than there must be: events were
    lost, or a step launches the flush's kernel too.
    """
    work = [a for a in recorded if a.is_work]
    found = Counter(a.name for a in work if a.name in flush)
    expected = Counter({name: count * rounds for name, count in flush.items()})
    if found != expected:
        raise ValueError(f"{rounds} flushes were recorded as {dict(found)}, not {dict(expected)}")
    return [a for a in work if a.name not in flush]
