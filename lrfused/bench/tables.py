"""Print results as tables: with rich where it is installed, as plain text elsewhere."""

from typing import Any

from . import report, schedule_cost

COLUMNS = ["case", "competitor", "ms", "IQR", "GB/s", "of in-place", "time / lrfused"]


def show(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print one table; an empty first cell continues the row above."""
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        _plain(title, columns, rows)
        return
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < 2 else "right", no_wrap=True)
    for row in rows:
        if row[0] and table.row_count:
            table.add_section()
        bold = "lrfused" in row[:2]
        table.add_row(*row, style="bold" if bold else None)
    # A table cut to a narrow pipe would lose its numbers.
    console = Console()
    console.width = max(console.width, 110)
    console.print(table)


def _plain(title: str, columns: list[str], rows: list[list[str]]) -> None:
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
    print(title)
    for row in [columns, *rows]:
        cells = [
            cell.ljust(width) if index < 2 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def step_table(cases: dict[str, dict[str, Any]]) -> None:
    """Show all competitors of all cases."""
    rows = []
    for case in cases.values():
        title = case["title"]
        for name, row in report.rates(case).items():
            note = case["distances"].get(name, {})
            wrong = " *" if note.get("differing") else ""
            rows.append(
                [
                    title,
                    name + wrong,
                    f"{row['median_ms']:.3f}",
                    f"{row['iqr_ms']:.3f}",
                    f"{row['gb_per_s']:.1f}",
                    f"{row['share_of_in_place']:.1%}",
                    f"{row['ratio_to_lrfused']:.2f}x",
                ]
            )
            title = ""
    show("One optimizer step with its schedule", COLUMNS, rows)
    for case in cases.values():
        for name, note in case["distances"].items():
            if note["differing"]:
                print(
                    f"* {case['title']}, {name}: differs from {note['oracle']} in "
                    f"{note['differing']:,} values, by up to {note['max_ulp']:,} ulp"
                )


def schedule_table(schedule: dict[str, Any]) -> None:
    """Show what each schedule adds to a step, in lrfused and in torch."""
    rows = []
    for name, timings in schedule.items():
        steps = [
            f"{timings[key].median * 1e3:.2f} ± {timings[key].iqr * 5e2:.2f}"
            for key in ("without", "with", "torch without", "torch with")
        ]
        ours, theirs = (f"{ms * 1e3:+.2f}" for ms in schedule_cost.added(timings))
        rows.append([name, *steps[:2], ours, *steps[2:], theirs])
    columns = ["schedule", "lrfused", "with it", "added", "torch", "with it", "added"]
    show("What a schedule adds to a step, us on a tiny parameter (± half the IQR)", columns, rows)


def target_lines(targets: list[report.Target]) -> None:
    """Print each target with what was measured."""
    for target in targets:
        verdict = "reached    " if target.reached else "NOT reached"
        sign = "<=" if target.most else ">="
        print(f"{verdict}  {target.value:8.2f} {sign} {target.bound:5.2f}  {target.text}")
