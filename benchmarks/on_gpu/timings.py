"""Validate every contender on every case, then time it, while there is time."""

from __future__ import annotations

import statistics
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lrfused.commands.bench.timing import collector_off

from .cases import Case
from .contenders import Contender, Made, contenders
from .machine import Machine

VALIDATION_STEPS = 7
WARM_UP = 5
TO_COMPILE = 120  # seconds that must be left for torch.compile


@dataclass
class Limits:
    """How much may be measured."""

    rounds: int  # samples of each pass
    seconds: float  # of each pass
    deadline: float  # in time.monotonic(), after which no contender begins


def measure_all(
    found: dict[str, Any],
    cases: Iterable[Case],
    machine: Machine,
    limits: Limits,
    save: Callable[[], None],
) -> bool:
    """Fill `found`, saving it after each contender; return whether lrfused kept its promises.

    Contenders that are compiled come last, as they may take the time of all others.
    """
    copied = machine.copied_per_us(limits.rounds, limits.seconds)
    found["copy GB/s"] = copied / 1e3
    found.setdefault("cases", {})
    save()
    entries = [(case, contenders(case, machine)) for case in cases]
    kept = True
    for compiled in (False, True):
        for case, entrants in entries:
            chosen = [c for c in entrants if c.compiled == compiled]
            if chosen:
                rows = found["cases"].setdefault(case.name, {})
                race = Race(case, entrants[0], machine, limits, copied)
                kept &= race.run(chosen, rows, save)
    return kept


class Race:
    """The contenders of one case, compared with its oracle."""

    def __init__(
        self, case: Case, oracle: Contender, machine: Machine, limits: Limits, copied: float
    ) -> None:
        self._case, self._oracle, self._machine = case, oracle, machine
        self._limits, self._copied = limits, copied
        self._wanted: list[Tensor] = []

    def run(
        self, entrants: list[Contender], rows: dict[str, Any], save: Callable[[], None]
    ) -> bool:
        """Add a row for each contender; return whether lrfused kept its promises."""
        kept = True
        for contender in entrants:
            left = self._limits.deadline - time.monotonic()
            if left < (TO_COMPILE if contender.compiled else 0):
                rows.setdefault(contender.name, {"left out": "there was no time"})
            else:
                row = self._row(contender)
                rows[contender.name] = row
                kept &= not contender.ours or not (row.keys() & {"failed", "broken"})
                save()
                self._machine.clear()  # raises if the device is lost: no more can be measured
        save()
        return kept

    def _row(self, contender: Contender) -> dict[str, Any]:
        """Validate and time one contender; a failure is a row too."""
        try:
            return self._measured(contender)
        except Exception as error:
            return {"failed": said(error), "at": traceback.format_exc()}

    def _measured(self, contender: Contender) -> dict[str, Any]:
        made = contender.make()
        values = stepped(made, self._machine)
        if not self._wanted:
            first = contender is self._oracle
            self._wanted = values if first else stepped(self._oracle.make(), self._machine)
        wrong = self._machine.differing(values, self._wanted)
        del values
        row: dict[str, Any] = {"differing": wrong}
        if wrong and contender.exact:
            row["broken"] = f"{wrong} values are not the oracle's to the bit"
        elif contender.timed:
            row.update(self._timed(contender, made))
        return row

    def _timed(self, contender: Contender, made: Made) -> dict[str, Any]:
        machine, rounds, seconds = self._machine, self._limits.rounds, self._limits.seconds
        for _ in range(WARM_UP):
            made.step()
        with collector_off():
            host = machine.host_us(made.step, rounds, seconds)
            spent = statistics.median(host)
            device = machine.device_us(made.step, rounds, seconds, host_us=spent)
        took = statistics.median(device)
        row: dict[str, Any] = {
            "device us": took, "host us": spent, "of copy": self._case.bytes / took / self._copied,
            "samples": {"device": device, "host": host},
        }  # fmt: skip
        if machine.gpu and contender.profiled:
            row.update(self._profiled(contender, made))
        return row

    def _profiled(self, contender: Contender, made: Made) -> dict[str, Any]:
        try:
            work, steps = self._machine.work(made.step, self._limits.rounds)
        except Exception as error:  # times were measured without it
            return {"not profiled": said(error)}
        row: dict[str, Any] = {
            "kernels us": sum(activity.us for activity in work) / steps,
            "launches": len(work) / steps,
        }
        if contender.launches is not None and len(work) != contender.launches * steps:
            names = sorted({activity.name for activity in work})
            row["broken"] = f"{len(work)} launches in {steps} steps, not {contender.launches} each"
            row["launched"] = names
        return row


def said(error: Exception) -> str:
    """Return the first line of an error: CUDA's have advice behind it."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


def stepped(made: Made, machine: Machine) -> list[Tensor]:
    """Step on the same gradients as everyone; return what is compared."""
    generator = machine.generator(2)
    for _ in range(VALIDATION_STEPS):
        for p in made.params:
            p.grad.normal_(generator=generator)
        made.step()
    return made.values()
