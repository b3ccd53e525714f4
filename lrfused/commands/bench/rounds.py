"""Validate and time all contenders of one case, within the free memory."""

from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from .cases import Case
from .contenders import LRFUSED, OWN, Contender, Maker, reason
from .rivals import RIVALS
from .timing import Timing, interleave
from .validate import Distance, Truth

CONTENDERS: dict[str, Maker] = {**OWN, **RIVALS}
YARDSTICK = "in-place x.mul_"
YARDSTICK_ELEMENTS = 25_557_032  # those of ResNet-50
HELD_AT_ONCE = 5_000_000_000  # bytes of contenders' tensors
FEWEST_ROUNDS = 4
PLACES_MATTER = 100_000_000  # bytes of a contender's tensors


def run(case: Case, seconds: float, names: Iterable[str] = CONTENDERS) -> dict[str, Any]:
    """Time a case's contenders in as few fields as memory allows; lrfused is in each.

    Returns a row for every name: its timing, or the reason why there is none. Raises AssertionError
    if a contender that must have the oracle's bits has others.
    """
    lacking = memory_lacking(case)
    if lacking:
        return _described(case, [{"name": name, "not_timed": lacking} for name in names])
    truth = Truth.of(case)
    ours = CONTENDERS[LRFUSED](case)
    distance = truth.check(LRFUSED, ours)
    yardstick = torch.ones(min(YARDSTICK_ELEMENTS, max(case.elements, 1 << 20)))
    timer = _Timer(ours, yardstick, seconds, case)
    rows: dict[str, dict[str, Any]] = {LRFUSED: row(LRFUSED, distance)}
    field: dict[str, Contender] = {}
    for name in names:
        if name == LRFUSED:
            continue
        try:
            rival = CONTENDERS[name](case)
            distance = truth.check(name, rival)
            rival.settle()
        except Exception as error:
            rows[name] = {"name": name, "not_timed": reason(name, error)}
            continue
        rows[name] = row(name, distance, rival.note)
        if rival.alone:
            timer.time({name: rival})
            continue
        field[name] = rival
        if (len(field) + 2) * case.bytes_held > HELD_AT_ONCE:
            timer.time(field)
    timer.time(field)
    ratios = timer.ratios()
    for name, timing in timer.timings().items():
        if name in rows:
            rows[name] |= {**asdict(timing), "ratio": ratios[name]}
    in_place = timer.timings()[YARDSTICK].median
    bytes_moved = case.elements * case.bytes_per_element
    return {
        **_described(case, list(rows.values())),
        "in_place_gb_per_s": 8 * yardstick.numel() / in_place / 1e6,
        "share_of_in_place": bytes_moved / (8 * yardstick.numel()) * ratios[YARDSTICK],
    }


class _Timer:
    """Time fields of rivals, each beside lrfused and the in-place pass.

    Of a `zeroed` case a sample is a step and a `zero_grad`, and gradients are made again before it.
    Large cases change places before each round.
    """

    def __init__(
        self, ours: Contender, yardstick: torch.Tensor, seconds: float, case: Case
    ) -> None:
        self._ours = ours
        self._yardstick = yardstick
        self._seconds = seconds
        self._zeroed = case.zeroed
        self._changes_places = case.bytes_held >= PLACES_MATTER and not case.zeroed
        self._samples: dict[str, list[float]] = {}
        self._ratios: dict[str, list[float]] = {}

    def time(self, field: dict[str, Contender]) -> None:
        """Time the contenders of a field, and empty it."""
        if not field and self._samples:
            return
        everyone = {LRFUSED: self._ours, **field}
        calls: dict[str, Callable[[], object]] = {
            name: partial(_step_and_zero, one) if self._zeroed else one.step
            for name, one in everyone.items()
        }
        calls[YARDSTICK] = lambda: self._yardstick.mul_(0.9999999)
        found = interleave(
            calls,
            seconds=self._seconds,
            warm_up=1,
            min_rounds=FEWEST_ROUNDS,
            before={name: one.renew for name, one in everyone.items()} if self._zeroed else None,
            between=partial(change_places, list(everyone.values()))
            if self._changes_places
            else None,
        )
        for name, samples in found.items():
            self._samples.setdefault(name, []).extend(samples)
            together = zip(samples, found[LRFUSED], strict=True)
            self._ratios.setdefault(name, []).extend(theirs / ours for theirs, ours in together)
        for rival in field.values():
            rival.close()
        field.clear()

    def timings(self) -> dict[str, Timing]:
        """Return the quartiles of all samples so far."""
        return {name: Timing.of(samples) for name, samples in self._samples.items()}

    def ratios(self) -> dict[str, float]:
        """Return the median of each one's time as a multiple of lrfused's in the same round."""
        return {name: median(ratios) for name, ratios in self._ratios.items()}


def change_places(contenders: Iterable[Contender]) -> None:
    """Exchange the contenders' memory, and the numbers in it: each gets the next one's.

    The same step may take a tenth longer over memory that was allocated later.
    """
    tensors = [own for contender in contenders if (own := contender.tensors())]
    places = [[t.data for t in own] for own in tensors]
    for own, others in zip(tensors, places[1:] + places[:1], strict=True):
        for tensor, other in zip(own, others, strict=True):
            tensor.data = other


def _step_and_zero(contender: Contender) -> None:
    contender.step()
    contender.zero_grad()


def row(name: str, distance: Distance, note: str = "") -> dict[str, Any]:
    """Return the row of a contender that is timed, as yet without its timing."""
    return {"name": name, "not_timed": None, "note": note, "distance": asdict(distance)}


def _described(case: Case, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "case": case.name,
        "title": case.title,
        "dtype": str(case.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "tensors": len(case.shapes),
        "elements": case.elements,
        "bytes_per_element": case.bytes_per_element,
        "zero_grad": case.zeroed,
        "rows": rows,
    }


def memory_lacking(case: Case) -> str:
    """Return how much memory is missing for lrfused, a rival and the oracle; "" if none is."""
    needed = 3.5 * case.bytes_held
    there = _available()
    if there is None or needed <= there:
        return ""
    return f"needs {needed / 1e9:.0f} GB of memory, {there / 1e9:.0f} GB are free"


def _available() -> int | None:
    """Return the bytes available without swapping; None if the system does not report them."""
    info = Path("/proc/meminfo")
    if not info.exists():
        return None
    for line in info.read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) * 1024
    return None
