"""Draw learning rates over epochs, lrfused's on top of torch's."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

INK, MUTED, GHOST, GRID = "#1b1f24", "#6b7280", "#d9dce1", "#eceef1"
FUSED, TORCH = "#0b4f8a", "#f5b971"


@dataclass(frozen=True)
class Curve:
    """Hold the rate of every step of one run, by lrfused and by torch."""

    name: str
    fused: list[float]
    torch: list[float]
    steps_per_epoch: int
    accuracy: float

    @property
    def epochs(self) -> list[float]:
        """Give the time of every step, in epochs."""
        return [step / self.steps_per_epoch for step in range(len(self.fused))]


def draw(curves: Sequence[Curve], path: Path, *, steps: int, identical: int) -> None:
    """Write small multiples of the curves to `path`, every panel on the same two axes.

    `steps` counts the steps of all runs, `identical` the runs that were bit-identical to torch.
    """
    rows = -(-len(curves) // 3)
    figure = Figure(figsize=(12, 1.5 + 3.1 * rows), facecolor="white")
    panels = figure.subplots(rows, 3, sharex=True, sharey=True, squeeze=False)
    figure.subplots_adjust(
        left=0.06, right=0.98, bottom=0.075, top=0.80, wspace=0.07, hspace=0.26
    )
    for panel, curve in zip(panels.flat, curves, strict=False):
        _panel(panel, curve, [other for other in curves if other is not curve])
    for panel in panels[-1]:
        panel.set_xlabel("epoch", color=MUTED, fontsize=10)
    _legend(panels[0][0], curves[0])
    _title(figure, len(curves), steps, identical)
    figure.savefig(path, dpi=160)


def _panel(panel: Axes, curve: Curve, others: Sequence[Curve]) -> None:
    for other in others:
        panel.plot(other.epochs, other.fused, color=GHOST, linewidth=1, zorder=1)
    panel.plot(curve.epochs, curve.torch, color=TORCH, linewidth=6, alpha=0.75, zorder=2)
    panel.plot(curve.epochs, curve.fused, color=FUSED, linewidth=1.6, zorder=3)
    panel.set_yscale("log")
    panel.set_title(curve.name, loc="left", color=INK, fontsize=12, fontweight="bold", pad=7)
    panel.set_title(
        f"{curve.accuracy:.1f} % test accuracy", loc="right", color=MUTED, fontsize=9.5, pad=7
    )
    panel.annotate(
        f"{curve.fused[-1]:.2g}",
        (curve.epochs[-1], curve.fused[-1]),
        xytext=(-2, 7),
        textcoords="offset points",
        horizontalalignment="right",
        color=FUSED,
        fontsize=9.5,
    )
    panel.grid(True, which="major", color=GRID, linewidth=0.8)
    panel.set_axisbelow(True)
    panel.spines[:].set_visible(False)
    panel.tick_params(which="both", length=0, colors=MUTED, labelsize=9.5)
    panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    panel.yaxis.set_major_locator(LogLocator(base=10))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:g}"))
    panel.yaxis.set_minor_formatter(NullFormatter())


def _legend(panel: Axes, curve: Curve) -> None:
    """Name the two lines where they are first seen."""


def _title(figure: Figure, runs: int, steps: int, identical: int) -> None:
    verdict = (
        "equal torch's to the last bit"
        if identical == runs
        else f"equal torch's to the last bit in {identical} of {runs}"
    )
    figure.text(
        0.06, 0.945, f"The learning rates of {runs} schedules {verdict}",
        color=INK, fontsize=17, fontweight="bold",
    )
    figure.text(
        0.06, 0.9,
        f"Rate used by each of {steps:,} optimizer steps, on a log scale; in grey the other "
        "schedules. Narrow line: lrfused.FusedDecaySGD. Wide band: torch.optim.SGD and its scheduler.",
        color=MUTED, fontsize=10.5,
    )
