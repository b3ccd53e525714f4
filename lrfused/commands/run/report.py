"""Report a run in one table on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from .records import Record
from .tally import Tally

_HEAD = ("optimizer", "steps made by", "steps", "first", "later", "zero_grad", "share")


def report(seconds: float, found: list[Record], baseline: list[Record]) -> None:
    """Print the table, and lines about checks and the first run; one line if not rank 0."""
    if sys.__stderr__ is None or sys.__stderr__.closed:
        return
    rows = [row for record in found for row in record.rows]
    lines = [_title(rows), *_checks(rows), *_times(seconds, baseline)]
    if os.environ.get("RANK", "0") != "0":
        _print(f"lrfused run, rank {os.environ['RANK']}: {'; '.join(lines)}")
        return
    _print(f"lrfused run: {lines[0]}")
    if rows:
        labelled = len(found) > 1
        cells = [c for r in [*found, *baseline] for c in _cells(r, labelled)]
        _print_table((("process", *_HEAD) if labelled else _HEAD), cells)
    for line in lines[1:]:
        _print(line)


def _title(rows: list[Tally]) -> str:
    total = sum(row.optimizers for row in rows)
    if not total:
        return "no torch.optim.SGD made a step"
    replaced = sum(row.optimizers for row in rows if row.other is None)
    return f"{replaced} of {total} {'optimizer' if total == 1 else 'optimizers'} replaced"


def _checks(rows: list[Tally]) -> Iterable[str]:
    checked, steps = sum(r.checked for r in rows), sum(r.steps for r in rows if r.other is None)
    if not checked:
        return
    differing = sum(row.differing for row in rows)
    verdict = "every bit equal" if not differing else f"{differing} values differ"
    yield f"{checked} of {steps} steps compared with torch's for-loop: {verdict}"
    yield from (f"first to differ: {row.first}" for row in rows if row.first)


def _times(seconds: float, baseline: list[Record]) -> Iterable[str]:
    if baseline:
        yield f"the whole run: {seconds:.2f} s; with torch's own SGD: {baseline[0].seconds:.2f} s"


def _cells(record: Record, labelled: bool) -> Iterable[tuple[str, ...]]:
    for row in record.rows:
        made_by = row.other or f"lrfused, {row.backend}"
        name = row.name if row.optimizers == 1 else f"{row.optimizers} {row.name}"
        times = map(_seconds, (row.first_step, row.later_steps, row.zero_grad))
        counts = (str(row.steps), *times, f"{row.seconds / record.seconds:.1%}")
        cells = (name, made_by, *(counts if row.steps else ("—",) * len(counts)))
        yield (record.label, *cells) if labelled else cells


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1e3 * seconds:.1f} ms"


def _print(line: str) -> None:
    print(line, file=sys.__stderr__)


def _print_table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    try:
        from rich import box
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table
    except ImportError:  # lrfused[cli] brings it; without it, lines of text
        for row in rows:
            _print("  ".join(f"{title}: {cell}" for title, cell in zip(head, row, strict=True)))
        return
    table = Table(*head, box=box.SIMPLE)
    table.columns[-6].overflow = "fold"
    for column in table.columns[-5:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*map(escape, row))
    terminal = Console(file=sys.__stderr__)
    if not terminal.is_terminal:
        terminal.width = 110  # of a log
    terminal.print(table)
