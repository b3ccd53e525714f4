"""Draw a curve in the terminal, in Braille characters of 2 x 4 dots."""

from __future__ import annotations

import math
from collections.abc import Sequence

_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))


def plot(
    values: Sequence[float],
    marked: Sequence[int],
    *,
    title: str,
    width: int,
    height: int = 12,
    log: bool = False,
    braille: bool = True,
) -> list[str]:
    """Return the lines of a plot of `values` by index, with a bar at each marked index."""
    drawn = [_height(v, log) for v in values]
    finite = [y for y in drawn if y is not None]
    low, high = min(finite), max(finite)
    labels = [_label(10**y if log else y) for y in (high, (low + high) / 2, low)]
    margin = max(map(len, labels))
    columns = max(10, width - margin - 2)
    span = (high - low) or 1.0
    last = max(1, len(values) - 1)
    dots = [[0] * columns for _ in range(height)]
    before: tuple[int, int] | None = None
    for x, y in _thinned(drawn, 2 * columns):
        here = (
            round(x / last * (2 * columns - 1)),
            round((high - y) / span * (4 * height - 1)) if high > low else 2 * height,
        )
        for column, row in _line(before or here, here):
            dots[row // 4][column // 2] |= _DOTS[column % 2][row % 4]
        before = here
    bars = {round(step / last * (2 * columns - 1)) // 2 for step in marked}
    lines = [line[:width] for line in title.splitlines()]
    at = {0: labels[0], height // 2: labels[1], height - 1: labels[2]}
    for row in range(height):
        cells = "".join(_cell(dots[row][c], c in bars, braille) for c in range(columns))
        side = "┤" if braille else "|"
        lines.append(f"{at.get(row, ''):>{margin}} {side}{cells}".rstrip())
    right = str(len(values) - 1)
    lines.append(" " * (margin + 2) + "0" + right.rjust(columns - 1))
    return lines


def _thinned(drawn: list[float | None], columns: int) -> list[tuple[int, float]]:
    """Keep the first, the lowest, the highest and the last point of each column."""
    points = [(x, y) for x, y in enumerate(drawn) if y is not None]
    size = math.ceil(len(points) / columns)
    if size <= 4:
        return points
    kept = []
    for i in range(0, len(points), size):
        part = points[i : i + size]
        by_y = sorted(part, key=lambda point: point[1])
        kept += sorted({part[0], by_y[0], by_y[-1], part[-1]})
    return kept


def _height(value: float, log: bool) -> float | None:
    if not math.isfinite(value) or (log and value <= 0):
        return None
    return math.log10(value) if log else value


def _line(begin: tuple[int, int], end: tuple[int, int]) -> list[tuple[int, int]]:
    count = max(abs(end[0] - begin[0]), abs(end[1] - begin[1]), 1)
    return [
        (
            round(begin[0] + (end[0] - begin[0]) * k / count),
            round(begin[1] + (end[1] - begin[1]) * k / count),
        )
        for k in range(count + 1)
    ]


def _cell(dots: int, bar: bool, braille: bool) -> str:
    if dots:
        return chr(0x2800 + dots) if braille else "*"
    return ("┊" if braille else ":") if bar else " "


def _label(value: float) -> str:
    return f"{value:.3g}"
