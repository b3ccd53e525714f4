"""Draw the learning rate of any schedule, before a run is paid for."""

from __future__ import annotations

import math
import shutil
import sys
from pathlib import Path

import torch

from ... import backends
from ...optimizer import FusedDecaySGD
from ...schedules import ReduceLROnPlateau, Schedule
from ..arguments import CommandError
from . import marks, spec, terminal

WITHOUT_END = 100  # steps drawn of a schedule that has no end


def run(
    text: str, *, lr: float = 0.1, steps: int | None = None, out: Path | None = None,
    log: bool = False,
) -> int:  # fmt: skip
    """Draw the schedule of the SPEC `text`: to `out`, a .png or .svg, or as characters on stdout.

    Raises CommandError for what cannot be drawn.
    """
    found = spec.read(text)
    drawn = tuple(s for s in found if not isinstance(s, ReduceLROnPlateau))
    if not drawn:
        raise CommandError("SPEC: ReduceLROnPlateau depends on metrics, and cannot be drawn ahead")
    if len(drawn) < len(found):
        print("ReduceLROnPlateau depends on metrics: drawn without it", file=sys.stderr)
    count = steps or marks.last_end(drawn) or WITHOUT_END
    rates, momenta = trace(drawn, lr, count)
    if not any(math.isfinite(rate) and (rate > 0 or not log) for rate in rates):
        rule = "needs a rate above 0" if log else "needs a rate that is finite"
        raise CommandError(f"{'--log' if log else '--lr'} {rule}, and the schedule has none")
    found_marks: dict[int, list[str]] = {}
    for schedule in drawn:
        for step, what in marks.marks(schedule, count):
            words = found_marks.setdefault(step, [])
            if what not in words:
                words.append(what)
    marked = [(step, ", ".join(found_marks[step])) for step in sorted(found_marks)]
    panels = {"learning rate": rates}
    if len(set(momenta)) > 1:
        panels["momentum"] = momenta
    caption = f"lr={lr:g}, {count:,} steps, {min(rates):.3g} to {max(rates):.3g}"
    if out is None:
        _print(panels, marked, f"{text}\n{caption}", log)
        return 0
    from .figure import draw  # here, since it needs matplotlib

    draw(panels, marked, out, title=text, caption=caption, log=log)
    print(f"drawn in {out}")
    return 0


def trace(
    schedules: tuple[Schedule, ...], lr: float, steps: int
) -> tuple[list[float], list[float]]:
    """Return the rates and the momenta that the first `steps` steps use."""
    fastest = next(name for name, why in backends.available().items() if why is None)
    rates: list[float] = []
    momenta: list[float] = []
    try:
        optimizer = FusedDecaySGD(
            [torch.zeros(1, requires_grad=True)],
            lr=lr, momentum=0.9, schedule=schedules, backend=fastest,
        )  # fmt: skip
    except Exception as error:
        raise CommandError(f"SPEC: {spec.one_line(error)}") from error
    group = optimizer.param_groups[0]
    while True:
        rates.append(float(group["lr"]))
        momenta.append(float(group["momentum"]))
        if len(rates) == steps:
            return rates, momenta
        try:
            optimizer.step()
        except Exception as error:
            raise CommandError(f"--steps {steps}: {spec.one_line(error)}") from error


def _print(
    panels: dict[str, list[float]], marked: list[tuple[int, str]], title: str, log: bool
) -> None:
    width = shutil.get_terminal_size().columns
    try:
        "⣿┊┤".encode(sys.stdout.encoding or "ascii")
        braille = True
    except UnicodeEncodeError:
        braille = False
    at = [step for step, _ in marked]
    for what, values in panels.items():
        heading = title if what == "learning rate" else what
        is_log = log and what == "learning rate"
        lines = terminal.plot(values, at, title=heading, width=width, log=is_log, braille=braille)
        print("\n".join(lines))
    rates = panels["learning rate"]
    for step, what in marked[:12]:
        print(f"  step {step:,}: {what}, lr {rates[step]:.4g}")
    if len(marked) > 12:
        print(f"  and {len(marked) - 12} more")
