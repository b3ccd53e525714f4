"""Draw learning rates over steps with matplotlib, without a screen."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

INK, MUTED, GRID, CURVE = "#1b1f24", "#6b7280", "#eff1f4", "#0b4f8a"
LABELLED = 14  # marks; more are drawn without words


def draw(
    panels: dict[str, list[float]],
    marks: Sequence[tuple[int, str]],
    path: Path,
    *,
    title: str,
    caption: str,
    log: bool,
) -> None:
    """Write one panel for each of `panels`, the first on a logarithmic axis if `log`."""
    figure = Figure(figsize=(9, 2.2 + 2.7 * len(panels)), facecolor="white", layout="constrained")
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (what, values) in zip(axes, panels.items(), strict=True):
        axis.step(range(len(values)), values, where="post", color=CURVE, linewidth=1.6)
        axis.set_ylabel(what, color=MUTED)
        for step, _ in marks:
            axis.axvline(step, color=MUTED, linewidth=0.8, linestyle=(0, (2, 3)))
        _plain(axis)
    if log:
        axes[0].set_yscale("log")
        axes[0].yaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:g}"))
    axes[-1].set_xlabel("schedule step", color=MUTED)
    if 0 < len(marks) <= LABELLED:
        top = axes[0].secondary_xaxis("top")
        top.set_xticks([step for step, _ in marks])
        words = [f"{step:,}  {what}" for step, what in marks]
        top.set_xticklabels(words, rotation=30, ha="left", fontsize=8.5, color=MUTED)
        top.tick_params(length=0)
        top.spines[:].set_visible(False)
    lines = textwrap.wrap(title, 84)
    figure.suptitle("\n".join([*lines, caption]), x=0.01, ha="left", color=INK, fontsize=11)
    figure.savefig(path, dpi=160)


def _plain(axis: Axes) -> None:
    axis.grid(True, color=GRID, linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[:].set_visible(False)
    axis.tick_params(which="both", length=0, colors=MUTED)
    axis.margins(x=0.01)
