"""Compare every backend with torch on the user's own machine and devices, bit for bit."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from ... import backends
from ..arguments import CommandError
from . import cases
from .checks import Findings, Schedule, Tensors, update_all


@dataclass(frozen=True)
class Case:
    """Hold one comparison, and the row of the tables that counts it."""

    row: tuple[str, ...]
    place: str
    run: Callable[[], Findings]


def run(*, quick: bool = False, backend: str | None = None, device: str | None = None) -> int:
    """Compare all backends on all devices; print tables; return 1 unless all bits are equal."""
    names, devices = _backends(backend), _devices(device)
    todo = [*_updates(names, devices, quick), *_schedules(names, devices, quick)]
    console = Console()
    console.print(
        f"torch {torch.__version__}; backends {', '.join(names)}; devices "
        f"{', '.join(map(str, devices))}; compared as integers, without tolerance",
        highlight=False,
    )
    threads = torch.get_num_threads()
    if quick:  # on busy cores, threads wait for each other longer than they work
        torch.set_num_threads(1)
    try:
        rows = _run(console, todo)
    finally:
        torch.set_num_threads(threads)
    return _report(console, rows)


def _run(console: Console, todo: list[Case]) -> dict[tuple[str, ...], Findings]:
    rows: dict[tuple[str, ...], Findings] = {}
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    ) as progress:
        task = progress.add_task("", total=len(todo))
        for case in todo:
            progress.update(task, description=f"{case.place:<56.56}")
            rows.setdefault(case.row, Findings()).add(_findings(case))
            progress.advance(task)
    return rows


def _backends(asked: str | None) -> list[str]:
    available = backends.available()
    if asked is not None and available[asked] is not None:
        raise CommandError(f"--backend {asked} cannot be used here: {available[asked]}")
    return [name for name, why in available.items() if why is None and asked in (None, name)]


def _devices(asked: str | None) -> list[torch.device]:
    cuda = [torch.device("cuda", i) for i in range(torch.cuda.device_count())]
    here = [torch.device("cpu"), *cuda]
    if asked is None:
        return here
    try:
        device = torch.device(asked)
    except RuntimeError:
        device = torch.device("meta")
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", 0)
    if device.type == "cpu":
        device = torch.device("cpu")
    if device not in here:
        there = ", ".join(map(str, here))
        raise CommandError(f"--device must be one that is there ({there}), got {asked}")
    return [device]


def _updates(names: list[str], devices: list[torch.device], quick: bool) -> Iterator[Case]:
    steps = 3 if quick else 8
    for device in devices:
        for dtype in cases.DTYPES:
            word = str(dtype).removeprefix("torch.")
            tensors = Tensors.draw(dtype, device, steps)
            together = list(range(len(tensors.params)))
            choices = [together] if quick else [together, *([i] for i in together)]
            for name in names:
                for key, hyper in cases.HYPER.items():
                    compare = functools.partial(update_all, tensors, choices, name, hyper)
                    place = f"{device}, {name}, {word}, {key}"
                    yield Case((str(device), name, word), place, compare)


def _schedules(names: list[str], devices: list[torch.device], quick: bool) -> Iterator[Case]:
    steps = 400 if quick else 4_000  # a table is made for 1,024
    for rules in cases.SCHEDULES:
        title = cases.title(rules)
        for device in devices:
            schedule = Schedule(rules, device, steps)
            for name in names:
                compare = functools.partial(schedule.compare, name)
                yield Case((title,), f"{device}, {name}, {title}", compare)


def _findings(case: Case) -> Findings:
    try:
        found = case.run()
    except Exception as error:  # one case that breaks must not hide what the others find
        message = str(error).partition("\n")[0]
        found = Findings(cases=1, differing=1, first=f"{type(error).__name__}: {message}")
    if found.first:
        found.first = f"{case.place}, {found.first}"
    return found


def _report(console: Console, rows: dict[tuple[str, ...], Findings]) -> int:
    columns = {3: ("device", "backend", "dtype"), 1: ("schedule",)}
    for width, titles in columns.items():
        table = Table()
        for heading in titles:
            table.add_column(heading, no_wrap=True)
        for heading in ("cases", "steps", "values", "differing"):
            table.add_column(heading, justify="right", no_wrap=True)
        for row, found in rows.items():
            if len(row) == width:
                style = "red" if found.differing else "green"
                counts = (found.cases, found.steps, found.values)
                numbers = [f"{count:,}" for count in counts]
                table.add_row(*row, *numbers, f"[{style}]{found.differing:,}")
        console.print(table)
    for found in rows.values():
        if found.first:
            console.print(f"[red]first to differ: {escape(found.first)}", soft_wrap=True)
    values = sum(found.values for found in rows.values())
    differing = sum(found.differing for found in rows.values())
    verdict = "all equal, bit for bit" if not differing else f"{differing:,} differ"
    console.print(f"{values:,} values compared: {verdict}", highlight=False)
    return 1 if differing else 0
