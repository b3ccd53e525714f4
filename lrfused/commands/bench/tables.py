"""Print results as tables: with rich if it is installed, else as plain text."""

from typing import Any

from . import report

COLUMNS = ["case", "competitor", "result", "ms", "IQR", "GB/s", "of in-place", "time / lrfused"]
LEFT = 3  # columns of words


def show(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print one table; an empty first cell continues the row above."""
    try:
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table
    except ImportError:
        _plain(title, columns, rows)
        return
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(
            column, justify="left" if index < LEFT else "right", no_wrap=index != LEFT - 1
        )
    for row in rows:
        if row[0] and table.row_count:
            table.add_section()
        bold = "lrfused" in row[:2]
        table.add_row(*map(escape, row), style="bold" if bold else None)
    # A table cut to a narrow pipe would lose its numbers.
    console = Console()
    console.width = max(console.width, 150)
    console.print(table)


def _plain(title: str, columns: list[str], rows: list[list[str]]) -> None:
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
    print(title)
    for row in [columns, *rows]:
        cells = [
            cell.ljust(width) if index < LEFT else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def everything(found: dict[str, Any]) -> None:
    """Print all results."""
    print()
    for threads in sorted({step["threads"] for step in found["steps"]}):
        shown = [step for step in found["steps"] if step["threads"] == threads]
        step_table(f"One optimizer step with its schedule, {threads} threads", shown)
    for threads in sorted({training["threads"] for training in found["loop"]}):
        shown = [training for training in found["loop"] if training["threads"] == threads]
        loop_table(f"Training, {threads} threads: zero_grad, the step with its schedule, us", shown)
    if found["threads"]:
        threads_table(found["threads"])
    if found["growth"]:
        step_table("Cost growth: a step with its schedule, and zero_grad", found["growth"])
    if found["schedule"]:
        schedule_table(found["schedule"])
    if found["memory"]:
        rows = [[r["name"], r["not_measured"] or f"{r['beyond_mb']:.0f}"] for r in found["memory"]]
        title = "Peak memory of a step beyond parameters, gradients and momenta"
        show(title, ["competitor", "MB"], rows)
    if "import_ms" in found:
        print(f"import lrfused, beyond torch: {found['import_ms']:.1f} ms")


def step_table(title: str, steps: list[dict[str, Any]]) -> None:
    """Print all competitors of some cases; for those not timed, the reason."""
    rows = []
    for step in steps:
        rates = report.rates(step) if "share_of_in_place" in step else {}
        first = step["title"]
        for row in step["rows"]:
            numbers = [row["not_timed"], "", "", "", "", ""]
            if not row["not_timed"]:
                rate = rates[row["name"]]
                numbers = [
                    "; ".join(filter(None, [distance(row["distance"]), row["note"]])),
                    f"{rate['median_ms']:.3f}",
                    f"{rate['iqr_ms']:.3f}",
                    f"{rate['gb_per_s']:.1f}",
                    f"{rate['share_of_in_place']:.1%}",
                    f"{rate['ratio_to_lrfused']:.2f}x",
                ]
            rows.append([first, row["name"], *numbers])
            first = ""
    show(title, COLUMNS, rows)


def loop_table(title: str, loop: list[dict[str, Any]]) -> None:
    """Print the parts of an iteration of training; for those not timed, the reason."""
    rows = []
    for training in loop:
        rates = report.loop_rates(training)
        first = training["title"]
        for row in training["rows"]:
            numbers = [row["not_timed"], "", "", "", "", "", "", ""]
            if not row["not_timed"]:
                rate = rates[row["name"]]
                numbers = [
                    "; ".join(filter(None, [distance(row["distance"]), row["note"]])),
                    f"{rate['zero_grad_us']:.1f}",
                    f"{rate['step_us']:.1f}",
                    f"{rate['both_us']:.1f}",
                    f"{rate['ratio_to_lrfused']:.2f}x",
                    f"{rate['iteration_us']:.0f}",
                    f"{rate['share_of_iteration']:.1%}",
                    f"{rate['iteration_to_lrfused']:.2f}x",
                ]
            rows.append([first, row["name"], *numbers])
            first = ""
    columns = ["model", "competitor", "result", "zero_grad", "step", "both", "/ lrfused"]
    columns += ["iteration", "share", "/ lrfused"]
    show(title, columns, rows)


def threads_table(scaling: list[dict[str, Any]]) -> None:
    """Print the time of a step with one thread and with all of them, at each size."""
    rows = []
    for case in scaling:
        first = case["title"]
        for row in case["rows"]:
            times = [f"{1e3 * row[key]['median']:.2f}" for key in ("one", "all")]
            ratio = f"{row['ratio']:.2f}x"
            rows.append([first, row["name"], distance(row["distance"]), *times, ratio])
            first = ""
    several = f"{scaling[0]['threads']} threads"
    columns = ["case", "competitor", "result", "1 thread", several, "ratio"]
    show("One optimizer step with its schedule, us", columns, rows)


def distance(found: dict[str, Any]) -> str:
    """Return in a few words how far a result is from the oracle's."""
    if not found["differing"]:
        return "equal bits"
    return f"within {found['share']:.1g} of the largest value"


def schedule_table(schedules: list[dict[str, Any]]) -> None:
    """Print the time that each schedule adds to a step, in lrfused and in torch."""
    rows = []
    for row in schedules:
        steps = [
            f"{row[key]['median'] * 1e3:.2f} ± {(row[key]['high'] - row[key]['low']) * 5e2:.2f}"
            for key in ("without", "with", "torch without", "torch with")
        ]
        ours, theirs = (f"{ms * 1e3:+.2f}" for ms in report.added(row))
        rows.append([row["name"], *steps[:2], ours, *steps[2:], theirs])
    columns = ["schedule", "lrfused", "with it", "added", "torch", "with it", "added"]
    show("What a schedule adds to a step, us on a tiny parameter (± half the IQR)", columns, rows)


def target_lines(targets: list[report.Target]) -> None:
    """Print each target with its measured value."""
    for target in targets:
        verdict = "reached    " if target.reached else "NOT reached"
        sign = "<=" if target.most else ">="
        print(f"{verdict}  {target.value:8.2f} {sign} {target.bound:5.2f}  {target.text}")
