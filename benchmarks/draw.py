"""Draw the newest results to results/*.svg; with --check, only see whether they are drawn."""

import re
import sys
from pathlib import Path
from typing import Any

from newest import RESULTS, newest

from lrfused.commands.bench import report

OURS, THEIRS, LIMIT = "#3f51b5", "#b0bec5", "#d32f2f"
FAINT = "#6b7280"


def wanted(found: dict[str, Any]) -> set[str]:
    """Name the pictures that there should be."""
    names = {f"steps-{step['threads']}-threads.svg" for step in found["steps"]}
    return names | {f"{key}.svg" for key in DRAWERS if found.get(key)}


def steps(axes_of: Any, found: dict[str, Any], threads: int) -> Any:
    """Draw one panel of bars per case, with the time of an in-place pass as a line.

    Times are multiples of lrfused's in the same rounds: in some the machine is faster for all.
    """
    shown = [s for s in found["steps"] if s["threads"] == threads and "share_of_in_place" in s]
    figure, panels = axes_of(len(shown))
    for axes, step in zip(panels, shown, strict=True):
        rates = report.rates(step)
        names = sorted(rates, key=lambda name: -rates[name]["ratio_to_lrfused"])
        values = [rates[name]["ratio_to_lrfused"] for name in names]
        colours = [OURS if name == "lrfused" else THEIRS for name in names]
        bars = axes.barh(names, values, color=colours)
        axes.bar_label(bars, fmt=" %.3g", fontsize=8)
        ours = rates["lrfused"]
        axes.axvline(ours["share_of_in_place"], color=LIMIT, linewidth=1.5)
        axes.set_title(
            f"{step['title']}: lrfused {ours['median_ms']:.3g} ms", loc="left", fontsize=10
        )
        axes.margins(x=0.15)
    figure.suptitle(
        f"One step with its schedule, times lrfused's, {counted(threads)}; red: an in-place pass "
        "over as many bytes, in the same rounds",
        fontsize=11,
    )
    return figure


def growth(axes_of: Any, found: dict[str, Any]) -> Any:
    """Draw one line per competitor: the time of a step over the number of tensors."""
    figure, (axes,) = axes_of(1)
    lines: dict[str, list[tuple[int, float]]] = {}
    for step in found["growth"]:
        rates = report.rates(step)
        for name, rate in rates.items():
            ms = rate["ratio_to_lrfused"] * rates["lrfused"]["median_ms"]
            lines.setdefault(name, []).append((step["tensors"], ms))
    for name, points in lines.items():
        colour = {"color": OURS, "linewidth": 2.5} if name == "lrfused" else {}
        axes.loglog(*zip(*points, strict=True), marker="o", markersize=4, label=name, **colour)
    zeroed = all(step.get("zero_grad") for step in found["growth"])
    axes.set(xlabel="tensors of 64 elements", ylabel="ms")
    axes.set_title(
        f"A step{' and its zero_grad' * zeroed}: lrfused's median, and by their ratios to it in "
        "the same rounds the others'",
        loc="left",
        fontsize=10,
    )
    axes.legend(frameon=False, fontsize=8)
    return figure


def measured(found: dict[str, Any]) -> str:
    """Return where, with which torch, when and, in a checkout, of which commit they are."""
    parts = [found["device"]["cpu"], f"torch {found['versions']['torch']}", found["date"][:10]]
    if found["commit"] is not None:
        parts.append(f"commit {found['commit']['hash'][:9]}")
    return ", ".join(parts)


def counted(threads: int) -> str:
    """Return a number of threads in words."""
    return f"{threads} thread{'s' * (threads > 1)}"


def loop(axes_of: Any, found: dict[str, Any]) -> Any:
    """Draw one panel per model and threads: bars of zero_grad and of the step, stacked."""
    figure, panels = axes_of(len(found["loop"]))
    for axes, training in zip(panels, found["loop"], strict=True):
        rates = report.loop_rates(training)
        names = sorted(rates, key=lambda name: -rates[name]["both_us"])
        steps = [rates[name]["step_us"] for name in names]
        zeros = [rates[name]["zero_grad_us"] for name in names]
        colours = [OURS if name == "lrfused" else THEIRS for name in names]
        axes.barh(names, steps, color=colours)
        bars = axes.barh(names, zeros, left=steps, color=colours, alpha=0.6)
        labels = [
            f" {rates[name]['both_us']:,.1f}, {rates[name]['share_of_iteration']:.0%}"
            for name in names
        ]
        axes.bar_label(bars, labels, fontsize=8)
        axes.set_title(
            f"{training['title']}, {counted(training['threads'])}", loc="left", fontsize=10
        )
        axes.margins(x=0.25)
    figure.suptitle(
        "Training: a step with its schedule (dark) and zero_grad (light), median us, and the share "
        "of an iteration",
        fontsize=11,
    )
    return figure


def threads(axes_of: Any, found: dict[str, Any]) -> Any:
    """Draw one line per competitor and number of threads: the time of a step over elements."""
    figure, (axes,) = axes_of(1)
    cases = found["threads"]
    for index, row in enumerate(cases[0]["rows"]):
        colour = OURS if row["name"] == "lrfused" else THEIRS
        for key, number, line in (("one", 1, "--"), ("all", cases[0]["threads"], "-")):
            axes.loglog(
                [case["elements"] for case in cases],
                [1e3 * case["rows"][index][key]["median"] for case in cases],
                line, color=colour, marker="o", markersize=4,
                label=f"{row['name']}, {counted(number)}",
            )  # fmt: skip
    axes.set(xlabel="elements", ylabel="us a step")
    axes.legend(frameon=False, fontsize=8)
    return figure


def schedule(axes_of: Any, found: dict[str, Any]) -> Any:
    """Draw the time that a schedule adds to a step, in lrfused and in torch."""
    rows = [(row["name"], *report.added(row)) for row in found["schedule"]]
    return _pairs(axes_of, rows, "What a schedule adds to a step, us")


def _pairs(axes_of: Any, rows: list[tuple[str, float, float]], title: str) -> Any:
    figure, (axes,) = axes_of(1)
    for index, (_, *pair) in enumerate(rows):
        for offset, value, colour in zip((0.2, -0.2), pair, (OURS, THEIRS), strict=True):
            bars = axes.barh(index + offset, 1e3 * value, height=0.38, color=colour)
            axes.bar_label(bars, [f" {1e3 * value:.3g}"], fontsize=8)
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.legend(
        axes.containers[:2], ["lrfused", "torch's scheduler.step()"], frameon=False, fontsize=8
    )
    axes.set_title(title, loc="left", fontsize=10)
    axes.margins(x=0.15)
    return figure


def memory(axes_of: Any, found: dict[str, Any]) -> Any:
    """Draw the memory of a step beyond its tensors."""
    figure, (axes,) = axes_of(1)
    rows = [row for row in found["memory"] if not row["not_measured"]]
    colours = [OURS if row["name"] == "lrfused" else THEIRS for row in rows]
    bars = axes.barh(
        [r["name"] for r in rows], [max(r["beyond_mb"], 0) for r in rows], color=colours
    )
    axes.bar_label(bars, fmt=" %.0f", fontsize=8)
    axes.set_title(
        "Peak memory of a step beyond parameters, gradients and momenta, MB, ResNet-50 fp32",
        loc="left",
        fontsize=10,
    )
    axes.margins(x=0.15)
    return figure


DRAWERS = {
    "loop": loop, "threads": threads, "growth": growth, "schedule": schedule, "memory": memory
}  # fmt: skip


def draw(folder: Path = RESULTS) -> None:
    """Draw all pictures of the newest results in a folder, and remove other pictures."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    found, digest = newest(folder)
    style = {
        "svg.hashsalt": "lrfused", "svg.fonttype": "none",
        "axes.spines.top": False, "axes.spines.right": False,
    }  # fmt: skip

    def axes_of(count: int) -> tuple[Any, list[Any]]:
        columns = 1 if count == 1 else 2
        rows = -(-count // columns)
        size = (8, 3) if count == 1 else (12, 2.2 * rows + 0.6)
        figure, grid = pyplot.subplots(
            rows, columns, squeeze=False, figsize=size, layout="constrained"
        )
        flat = list(grid.flat)
        for axes in flat[count:]:
            axes.set_visible(False)
        return figure, flat[:count]

    for stale in {path.name for path in folder.glob("*.svg")} - wanted(found):
        (folder / stale).unlink()
    with matplotlib.rc_context(style):
        for name in sorted(wanted(found)):
            kind, *rest = name.removesuffix(".svg").split("-")
            if kind == "steps":
                figure = steps(axes_of, found, int(rest[0]))
            else:
                figure = DRAWERS[kind](axes_of, found)
            figure.supxlabel(measured(found), x=0.99, ha="right", fontsize=7, color=FAINT)
            # No date of the drawing: the same results give the same picture.
            figure.savefig(folder / name, metadata={"Date": None, "Source": f"sha256:{digest}"})
            pyplot.close(figure)


def undrawn(folder: Path = RESULTS) -> list[str]:
    """Name the pictures that are missing, too many, or drawn from other results."""
    found, digest = newest(folder)
    there = {path.name: path.read_text() for path in folder.glob("*.svg")}
    current = {name for name, text in there.items() if re.search(f"sha256:{digest}", text)}
    return sorted((wanted(found) | set(there)) - (current & wanted(found)))


def main() -> int:
    """Draw, or with --check return 1 where pictures are not the newest results'."""
    if "--check" not in sys.argv:
        draw()
        return 0
    for name in undrawn():
        print(f"{name} is not drawn from the newest results: run benchmarks/draw.py")
    return int(bool(undrawn()))


if __name__ == "__main__":
    sys.exit(main())
