"""Plots as SVG that takes its colours from the page, so that it reads in light and in dark."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup, escape

from vesalius.core.report import Metric, Plot, Series
from vesalius.measures.summary import MODEL, RIVAL
from vesalius.store.files import write_bytes

_WIDTH, _HEIGHT = 560.0, 380.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 76.0, 14.0, 34.0, 48.0
_ARMS = (MODEL, RIVAL)
_MOST_POINTS = 2000  # per series; more would make the page heavy without showing more


def plot_svg(plot: Plot) -> Markup:
    """The plot as an inline `<svg>`; series named after an arm get that arm's colour from the page's CSS."""
    points = [series for series in plot.series if not series.line]
    lines = [series for series in plot.series if series.line]
    if not any(series.x for series in plot.series):
        return Markup("<p class='none'>No values to plot.</p>")
    left, right, low, high = plot.limits or (*_range(plot.series, "x"), *_range(plot.series, "y"))
    x_ticks = _doublings(left, right) if plot.doubling else ticks(left, right)
    y_ticks = ticks(low, high)
    axes = _Axes(x_ticks[0], x_ticks[-1], y_ticks[0], y_ticks[-1], plot.doubling)
    curves = [series for series in lines if series.name in _ARMS or not series.name]
    body = [_frame(plot, axes, x_ticks, y_ticks)]
    body += [_dots(series, axes) for series in points]
    body += [_curve(series, axes) for series in curves]
    body += _lines([series for series in lines if series not in curves], axes)
    named = points + [series for series in curves if series.name]
    body.append(_legend(named))
    count = max((len(series.x) for series in named), default=0)
    about = f"{plot.title}: {count} points for each of {', '.join(series.name for series in named)}."
    return Markup(  # noqa: S704 - every text in it is escaped
        f'<svg class="plot" viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" role="img" aria-label="{escape(about)}">'
        f"{''.join(body)}</svg>"
    )


def interval_svg(metrics: Sequence[Metric], low: float, high: float) -> Markup:
    """A dot with its interval for each metric, on a common scale. The numbers stand beside it as text."""
    height, width = 12.0 * len(metrics) + 4.0, 200.0
    span = (high - low) or 1.0
    marks = []
    for row, metric in enumerate(metrics):
        y = 8.0 + 12.0 * row
        start, middle, end = (6.0 + (v - low) / span * (width - 12.0) for v in (metric.low, metric.value, metric.high))
        marks.append(
            f'<g class="arm-{escape(metric.arm)}"><line x1="{start:.1f}" x2="{end:.1f}" y1="{y:g}" y2="{y:g}"/>'
            f'<circle cx="{middle:.1f}" cy="{y:g}" r="3.6"/></g>'
        )
    opening = f'<svg class="interval" viewBox="0 0 {width:g} {height:g}" aria-hidden="true">'
    return Markup(f"{opening}{''.join(marks)}</svg>")  # noqa: S704 - every text in it is escaped


def write_plot(plot: Plot, path: Path) -> None:
    """A plot of lines, such as a learning curve, as a PNG; one without values writes nothing."""
    if not any(series.x for series in plot.series):
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for series in plot.series:
        axes.plot(series.x, series.y, linewidth=1.6, label=series.name)
    axes.set_title(plot.title)
    axes.set_xlabel(plot.x_title)
    axes.set_ylabel(plot.y_title)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    write_bytes(path, picture.getvalue())


def ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Round numbers, evenly spaced by 1, 2 or 5 times a power of ten, that enclose low..high."""
    largest = max(abs(low), abs(high))
    if high - low <= 1e-9 * largest or largest == 0.0:
        margin = 0.1 * largest or 1.0
        low, high = low - margin, high + margin
    raw = (high - low) / about
    power = math.floor(math.log10(raw))
    step = next(factor * 10.0**power for factor in (1.0, 2.0, 5.0, 10.0) if factor * 10.0**power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 1 - power) for number in range(first, last + 1)]


def _doublings(low: float, high: float) -> list[float]:
    """Powers of two that enclose low..high, both above 0."""
    first, last = math.floor(math.log2(low) + 1e-9), math.ceil(math.log2(high) - 1e-9)
    return [2.0**power for power in range(first, max(last, first + 1) + 1)]


class _Axes:
    """From values to places in the picture; where `doubling`, x by its logarithm."""

    def __init__(self, left: float, right: float, bottom: float, top: float, doubling: bool = False) -> None:
        self.doubling = doubling
        self.left, self.right = (math.log2(left), math.log2(right)) if doubling else (left, right)
        self.bottom, self.top = bottom, top

    def x(self, value: float) -> float:
        if self.doubling:
            value = math.log2(max(value, 2.0**self.left))
        return _LEFT + (value - self.left) / (self.right - self.left) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - (value - self.bottom) / (self.top - self.bottom) * (_HEIGHT - _TOP - _BOTTOM)


def _range(series: Sequence[Series], axis: str) -> tuple[float, float]:
    values = [value for one in series for value in getattr(one, axis) if math.isfinite(value)]
    return min(values, default=0.0), max(values, default=1.0)


def _frame(plot: Plot, axes: _Axes, x_ticks: Sequence[float], y_ticks: Sequence[float]) -> str:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    label = _fraction if plot.doubling else _number
    parts = []
    for tick in y_ticks:
        y = axes.y(tick)
        parts.append(f'<line class="grid" x1="{_LEFT:g}" x2="{right:g}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8:g}" y="{y + 4:.1f}" text-anchor="end">{_number(tick)}</text>')
    for tick in x_ticks:
        x = axes.x(tick)
        parts.append(f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom:g}" y2="{bottom + 5:g}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 20:g}" text-anchor="middle">{label(tick)}</text>')
    middle = (_LEFT + right) / 2
    parts.append(f'<line class="axis" x1="{_LEFT:g}" x2="{right:g}" y1="{bottom:g}" y2="{bottom:g}"/>')
    parts.append(
        f'<text class="title" x="{middle:g}" y="{_HEIGHT - 6:g}" text-anchor="middle">{escape(plot.x_title)}</text>'
    )
    centre = (_TOP + bottom) / 2
    parts.append(
        f'<text class="title" transform="translate(14 {centre:g}) rotate(-90)" text-anchor="middle">'
        f"{escape(plot.y_title)}</text>"
    )
    return "".join(parts)


def _dots(series: Series, axes: _Axes) -> str:
    pairs = [(x, y) for x, y in zip(series.x, series.y, strict=True) if math.isfinite(x) and math.isfinite(y)]
    every = max(1, math.ceil(len(pairs) / _MOST_POINTS))
    radius = 4.0 if len(pairs) < 300 else 2.6
    marks = (f'<circle cx="{axes.x(x):.1f}" cy="{axes.y(y):.1f}" r="{radius:g}"/>' for x, y in pairs[::every])
    return f'<g class="dots arm-{escape(series.name)}">{"".join(marks)}</g>'


def _curve(series: Series, axes: _Axes) -> str:
    """A line that is an arm's, in its colour; without a name a guide."""
    pairs = [(x, y) for x, y in zip(series.x, series.y, strict=True) if math.isfinite(x) and math.isfinite(y)]
    every = max(1, math.ceil(len(pairs) / _MOST_POINTS))
    path = " ".join(f"{axes.x(x):.1f},{axes.y(y):.1f}" for x, y in [*pairs[::every], *pairs[-1:]])
    if not series.name:
        return f'<polyline class="guide" points="{path}"/>'
    return f'<g class="curve arm-{escape(series.name)}"><polyline points="{path}"/></g>'


def _lines(lines: Sequence[Series], axes: _Axes) -> list[str]:
    """Lines with their names and last values at the right, moved apart where they would overlap."""
    parts, above = [], -math.inf
    for series in sorted(lines, key=lambda one: -one.y[-1]):
        path = " ".join(f"{axes.x(x):.1f},{axes.y(y):.1f}" for x, y in zip(series.x, series.y, strict=True))
        above = max(axes.y(series.y[-1]) - 5.0, above + 15.0)
        value = round(series.y[-1], 2 - math.floor(math.log10(axes.top - axes.bottom)))
        parts.append(
            f'<polyline class="line" points="{path}"/><text class="note" x="{_WIDTH - _RIGHT:g}" y="{above:.1f}" '
            f'text-anchor="end">{escape(series.name)} {_number(value)}</text>'
        )
    return parts


def _legend(series: Sequence[Series]) -> str:
    parts, x = [], _LEFT
    for one in series:
        parts.append(
            f'<g class="dots arm-{escape(one.name)}"><circle cx="{x + 5:g}" cy="14" r="5"/></g>'
            f'<text x="{x + 16:g}" y="18.5">{escape(one.name)}</text>'
        )
        x += 34 + 7.5 * len(one.name)
    return "".join(parts)


def _number(value: float) -> str:
    return f"{value:.10g}".replace("-", "−") if value else "0"


def _fraction(power: float) -> str:
    """A power of two as readers write it: 1/8, 4."""
    return _number(power) if power >= 1.0 else f"1/{round(1.0 / power)}"
