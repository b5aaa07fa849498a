"""Charts as SVG text. Colours are names of the page's style (``line-1``, ``bar``), so that they suit light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from mindeit.training.metrics import Bin

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 420, 230, 48, 10, 12, 34
MOST_DOTS = 40  # with more points than this a line shows no dots


class Line(NamedTuple):
    name: str
    points: Sequence[tuple[float, float]]


class _Scale(NamedTuple):
    """Values ``low`` to ``high`` lie at the places ``start`` to ``end``."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 1)


def lines(title: str, shown: Sequence[Line], x_label: str = "epoch") -> str:
    """Lines over a common axis; those without points are left out. "" if none has any."""
    shown = [line for line in shown if line.points]
    if not shown:
        return ""
    xs, ys = zip(*(point for line in shown for point in line.points))
    x_ticks, y_ticks = ticks(min(xs), max(xs), whole=True), ticks(min(ys), max(ys))
    x = _Scale(x_ticks[0], x_ticks[-1], LEFT, WIDTH - RIGHT)
    y = _Scale(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    parts = [*_grid(x, y, x_ticks, y_ticks), _text(WIDTH / 2, HEIGHT - 4, x_label, "middle")]
    for number, line in enumerate(shown, 1):
        places = [f"{x(a)},{y(b)}" for a, b in line.points]
        parts.append(f'<polyline class="line line-{number}" points="{" ".join(places)}"/>')
        if len(places) <= MOST_DOTS:
            parts += [
                f'<circle class="dot dot-{number}" cx="{x(a)}" cy="{y(b)}" r="2.5"><title>'
                f"{escape(line.name)}, {x_label} {a:g}: {b:.4g}</title></circle>"
                for a, b in line.points
            ]
    return _svg(title, WIDTH, HEIGHT, parts)


def reliability(title: str, bins: Sequence[Bin]) -> str:
    """Accuracy over confidence, bin by bin; what lies below the diagonal was promised and not kept."""
    size, edge = 220, 36
    x, y = _Scale(0, 1, edge, size - 8), _Scale(0, 1, size - edge, 8)
    most = max(each.images for each in bins)
    parts = _grid(x, y, [0, 0.25, 0.5, 0.75, 1], [0, 0.25, 0.5, 0.75, 1])
    for each in bins:
        if each.accuracy is None or each.confidence is None:
            continue
        left, top = x(each.low), y(each.accuracy)
        told = f"{each.images} images: confidence {each.confidence:.1%}, accuracy {each.accuracy:.1%}"
        parts.append(
            f'<rect class="bar" x="{left + 0.5}" y="{top}" width="{x(each.high) - left - 1:.1f}" '
            f'height="{y(0) - top:.1f}" opacity="{0.35 + 0.65 * each.images / most:.2f}"><title>{told}</title></rect>'
        )
    parts.append(f'<line class="diagonal" x1="{x(0)}" y1="{y(0)}" x2="{x(1)}" y2="{y(1)}"/>')
    parts.append(_text(size / 2, size - 4, "confidence", "middle"))
    return _svg(title, size, size, parts)


def ticks(low: float, high: float, *, whole: bool = False, most: int = 6) -> list[float]:
    """Round numbers from at most ``low`` to at least ``high``, evenly spaced, two or more."""
    if low == high:
        low, high = (low, high + 1) if whole else (low - 0.5 * abs(low or 1), high + 0.5 * abs(high or 1))
    rough = (high - low) / (most - 1)
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    if whole:
        step = max(1.0, math.ceil(step))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def _grid(x: _Scale, y: _Scale, x_ticks: Sequence[float], y_ticks: Sequence[float]) -> list[str]:
    across = [f'<line class="grid" x1="{x.start}" x2="{x.end}" y1="{y(tick)}" y2="{y(tick)}"/>' for tick in y_ticks]
    heights = [_text(x.start - 6, y(tick) + 3.5, f"{tick:.4g}", "end") for tick in y_ticks]
    return [*across, *heights, *(_text(x(tick), y.start + 14, f"{tick:.4g}", "middle") for tick in x_ticks)]


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(title: str, width: int, height: int, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
