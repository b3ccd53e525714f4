"""Draw learning rates over epochs, lrfused's on top of torch's."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

INK, MUTED, GHOST, GRID = "#1b1f24", "#6b7280", "#dfe2e7", "#eff1f4"
FUSED, TORCH = "#0b4f8a", "#f7c78f"
COLUMNS = 3


@dataclass(frozen=True)
class Curve:
    """Hold the rates of every step of one run and of the next, by lrfused and by torch."""

    name: str
    caption: str
    fused: list[float]
    torch: list[float]
    steps_per_epoch: int

    @property
    def epochs(self) -> list[float]:
        """Return the time of every step, in epochs."""
        return [step / self.steps_per_epoch for step in range(len(self.fused))]


def draw(curves: Sequence[Curve], path: Path, *, title: str) -> None:
    """Write small multiples of the curves to `path`, every panel on the same two axes."""
    rows = -(-len(curves) // COLUMNS)
    figure = Figure(figsize=(12, 1.8 + 3.1 * rows), facecolor="white")
    panels = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False)
    figure.subplots_adjust(left=0.055, right=0.985, bottom=0.07, top=0.8, wspace=0.06, hspace=0.33)
    for panel, curve in zip(panels.flat, curves, strict=False):
        _panel(panel, curve, [other for other in curves if other is not curve])
    for panel in panels[-1]:
        panel.set_xlabel("epoch", color=MUTED, fontsize=10)
    figure.text(0.055, 0.945, title, color=INK, fontsize=17, fontweight="bold")
    _legend(figure)
    figure.savefig(path, dpi=160)


def _panel(panel: Axes, curve: Curve, others: Sequence[Curve]) -> None:
    for other in others:
        panel.step(other.epochs, other.fused, where="post", color=GHOST, linewidth=0.9, zorder=1)
    panel.step(curve.epochs, curve.torch, where="post", color=TORCH, linewidth=6.5, zorder=2)
    panel.step(curve.epochs, curve.fused, where="post", color=FUSED, linewidth=1.6, zorder=3)
    last = curve.epochs[-1]
    panel.annotate(
        f"{curve.fused[-1]:.2g}",
        (last, curve.fused[-1]),
        xytext=(7, 0),
        textcoords="offset points",
        verticalalignment="center",
        color=FUSED,
        fontsize=9.5,
    )
    panel.annotate(
        curve.name,
        (0, 1),
        xytext=(0, 21),
        xycoords="axes fraction",
        textcoords="offset points",
        color=INK,
        fontsize=12,
        fontweight="bold",
    )
    panel.set_title(curve.caption, loc="left", color=MUTED, fontsize=9, pad=7)
    panel.set_xlim(-0.03 * last, 1.2 * last)
    panel.set_yscale("log")
    panel.grid(True, which="major", color=GRID, linewidth=0.8)
    panel.set_axisbelow(True)
    panel.spines[:].set_visible(False)
    panel.tick_params(which="both", length=0, colors=MUTED, labelsize=9.5)
    panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    panel.yaxis.set_major_locator(LogLocator(base=10))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:g}"))
    panel.yaxis.set_minor_formatter(NullFormatter())


def _legend(figure: Figure) -> None:
    lines = {
        "rate of each step with lrfused": Line2D([], [], color=FUSED, linewidth=1.6),
        "with torch.optim.SGD and its scheduler": Line2D([], [], color=TORCH, linewidth=6.5),
        "the other schedules": Line2D([], [], color=GHOST, linewidth=1.2),
    }
    figure.legend(
        list(lines.values()),
        list(lines),
        loc="center left",
        bbox_to_anchor=(0.05, 0.905),
        ncols=len(lines),
        frameon=False,
        borderpad=0,
        columnspacing=2.2,
        fontsize=10.5,
        labelcolor=MUTED,
    )
