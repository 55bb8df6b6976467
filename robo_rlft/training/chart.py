"""Small line charts as HTML and inline SVG: sharp at any width, coloured by the page's style sheet, no script.

The drawing area is an SVG in a 0..1000 square that stretches with the page; line widths do not scale, and the text is
HTML placed over it in per cent, so that it keeps its size on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from jaxtyping import Float
from numpy import ndarray

Values = Float[ndarray, " point"]
POINTS = 400
"""Points a line is thinned to: about one per pixel of a phone."""
COLOURS = 8
"""Line colours of the style sheet; a ninth line takes the first again, dashed."""
_SIZE = 1000.0


@dataclass(frozen=True)
class Series:
    """One line.

    Attributes:
        name: shown in the legend.
        x: ascending positions.
        y: values; those that are not finite are left out.
        low: lower end of a band around the line, or None.
        high: upper end of it, or None.
        dots: draw every point, for few points measured apart.
        smooth: draw a running mean, and the values themselves pale behind it.
    """

    name: str
    x: Values
    y: Values
    low: Values | None = None
    high: Values | None = None
    dots: bool = False
    smooth: bool = False


@dataclass(frozen=True)
class Chart:
    """One chart.

    Attributes:
        title: what is shown.
        x_label: the horizontal quantity with its unit.
        series: the lines.
        percent: values are shares, shown as per cent from 0 to 100.
        log: the vertical axis is logarithmic where all values are positive.
    """

    title: str
    x_label: str
    series: Sequence[Series]
    percent: bool = False
    log: bool = False

    def html(self) -> str:
        """The chart as one `figure` element, or nothing when it has fewer than two points."""
        lines = [finite(s) for s in self.series]
        lines = [s for s in lines if len(s.x)]
        if sum(len(s.x) for s in lines) < 2:
            return ""
        return _figure(self, lines, frame_of(self, lines))


def finite(series: Series) -> Series:
    """The series without points that are not finite, ordered by x."""
    x, y = np.asarray(series.x, np.float64), np.asarray(series.y, np.float64)
    keep = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    keep = keep[np.argsort(x[keep], kind="stable")]
    low, high = (None if v is None else np.asarray(v, np.float64)[keep] for v in (series.low, series.high))
    return Series(series.name, x[keep], y[keep], low, high, series.dots, series.smooth)


def thin(x: Values, y: Values, points: int = POINTS) -> tuple[Values, Values]:
    """At most `points` points, each the mean of as many neighbours."""
    if len(x) <= points:
        return x, y
    groups = np.arange(len(x)) * points // len(x)
    count = np.bincount(groups)
    return np.bincount(groups, x) / count, np.bincount(groups, y) / count


def running_mean(y: Values, width: int) -> Values:
    """Centred mean over `width` (odd) values; near the ends over those of them that there are."""
    total = np.concatenate([[0.0], np.cumsum(y)])
    index = np.arange(len(y))
    first, last = np.maximum(index - width // 2, 0), np.minimum(index + width // 2, len(y) - 1)
    return (total[last + 1] - total[first]) / (last + 1 - first)


def ticks(low: float, high: float, intervals: int = 3) -> list[float]:
    """Round values (1, 2 or 5 times a power of ten) within [low, high], the widest steps that fit `intervals` times."""
    if not high > low:
        return [low]
    widest = (high - low) / intervals * (1 + 1e-9)
    power = 10.0 ** math.floor(math.log10(widest))
    step = max(m * power for m in (1, 2, 5) if m * power <= widest)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    digits = max(0, 2 - math.floor(math.log10(step)))
    return [round(i * step, digits) + 0.0 for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten within [low, high], with their double and fivefold where that is at most six values."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    fine = [m * 10.0**d for d in decades for m in (1, 2, 5) if low <= m * 10.0**d <= high]
    coarse = [10.0**d for d in decades if low <= 10.0**d <= high]
    return fine if len(fine) <= 6 else coarse[:: max(1, len(coarse) // 5)]


def short(value: float, largest: float | None = None) -> str:
    """A number in few characters: `2.5M`, `40k`, `0.03`, `1e-05`.

    Args:
        value: the number.
        largest: decides the unit, so that the numbers of one axis share it; by default the number itself.
    """
    size = abs(value if largest is None else largest)
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if size >= (1e4 if unit == "k" else scale):
            return f"{value / scale:.3g}{unit}" if value else "0"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


@dataclass(frozen=True)
class Frame:
    """Data limits of a drawing, and how its values are shown; on a logarithmic axis `y0` and `y1` are exponents."""

    x0: float
    x1: float
    y0: float
    y1: float
    log: bool
    percent: bool

    def px(self, x: Values) -> Values:
        """Horizontal places in the 0..1000 square."""
        return (x - self.x0) / ((self.x1 - self.x0) or 1.0) * _SIZE

    def py(self, y: Values) -> Values:
        """Vertical places in the 0..1000 square, downwards."""
        value = np.log10(np.maximum(y, 1e-300)) if self.log else y
        return (1 - (value - self.y0) / ((self.y1 - self.y0) or 1.0)) * _SIZE

    def show(self, y: float) -> str:
        """A value of the vertical axis in few characters."""
        return f"{100 * y:.3g} %" if self.percent else short(y, None if self.log else max(abs(self.y0), abs(self.y1)))

    @property
    def y_ticks(self) -> list[float]:
        """Round values of the vertical axis."""
        return log_ticks(10.0**self.y0, 10.0**self.y1) if self.log else ticks(self.y0, self.y1)


def shade(index: int) -> str:
    """The style sheet's classes for the stroke of a chart's line."""
    return f"s{index % COLOURS}" + (" dash" if index // COLOURS % 2 else "")


def drawing(lines: Sequence[Series], frame: Frame) -> str:
    """Grid and lines as SVG in the 0..1000 square, for a page or picture with the report's style sheet.

    Args:
        lines: series as `finite` returns them.
        frame: their limits, from `frame_of`.
    """
    return "".join([*_gridlines(frame), *(_line(s, i, frame) for i, s in enumerate(lines))])


def frame_of(chart: Chart, lines: Sequence[Series]) -> Frame:
    """The limits that show every value of `lines`, which are those of the chart without what is not finite."""
    x = np.concatenate([s.x for s in lines])
    y = np.concatenate([v for s in lines for v in (s.y, s.low, s.high) if v is not None])
    y = y[np.isfinite(y)]
    log = chart.log and bool((y > 0).all()) and y.max() / y.min() > 8
    low, high = (0.0, 1.0) if chart.percent else _padded(np.log10(y)) if log else _floored(y)
    # An axis that nearly begins at zero begins at zero.
    first = 0.0 if 0 <= x.min() < 0.2 * x.max() else float(x.min())
    return Frame(first, float(x.max()), low, high, log, chart.percent)


def _padded(y: Values) -> tuple[float, float]:
    low, high = float(y.min()), float(y.max())
    margin = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
    return low - margin, high + margin


def _floored(y: Values) -> tuple[float, float]:
    """As `_padded`; a quantity that is never negative keeps zero as its floor, and shows it where it comes near."""
    low, high = _padded(y)
    return (low if y.min() < 0 else 0.0 if y.min() < 0.35 * y.max() else max(low, 0.0)), high


def _figure(chart: Chart, lines: Sequence[Series], frame: Frame) -> str:
    axes = _labels(frame)
    inner = drawing(lines, frame) + "".join(_hovers(lines, frame))
    svg = f'<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" role="img">{inner}</svg>'
    title = escape(chart.title)
    return (
        f'<figure class="chart"><figcaption>{title}{_legend(lines)}</figcaption>'
        f'<div class="plot" aria-label="{title}">{svg}{axes}</div>'
        f'<div class="xlabel">{escape(chart.x_label)}</div></figure>'
    )


def _legend(lines: Sequence[Series]) -> str:
    if len(lines) < 2:
        return ""
    keys = "".join(f'<span class="key k{i % COLOURS}">{escape(s.name)}</span>' for i, s in enumerate(lines))
    return f'<span class="legend">{keys}</span>'


def _labels(frame: Frame) -> str:
    parts = [
        f'<span class="ty" style="top:{_percent(frame.py(np.array(t)))}">{frame.show(t)}</span>' for t in frame.y_ticks
    ]
    for t in ticks(frame.x0, frame.x1):
        parts.append(f'<span class="tx" style="left:{_percent(frame.px(np.array(t)))}">{short(t, frame.x1)}</span>')
    return "".join(parts)


def _percent(position: ndarray) -> str:
    return f"{float(position) / 10:.2f}%"


def _gridlines(frame: Frame) -> Iterator[str]:
    for t in frame.y_ticks:
        y = float(frame.py(np.array(t)))
        yield f'<path class="grid" d="M0 {y:.1f}H1000"/>'


def _line(series: Series, index: int, frame: Frame) -> str:
    x, y = thin(series.x, series.y)
    stroke, index = shade(index), index % COLOURS
    parts = [_band(series, index, frame)]
    if series.smooth and len(x) >= 15:
        parts.append(f'<path class="raw s{index}" d="{_path(frame.px(x), frame.py(y))}"/>')
        y = running_mean(y, len(x) // 12 | 1)
    parts.append(f'<path class="line {stroke}" d="{_path(frame.px(x), frame.py(y))}"/>')
    if series.dots:
        # Lines of no length with round ends are dots that stay round when the drawing stretches.
        dots = "".join(f"M{a:.1f} {b:.1f}h0" for a, b in zip(frame.px(x), frame.py(y), strict=True))
        parts.append(f'<path class="dot s{index}" d="{dots}"/>')
    return "".join(parts)


def _band(series: Series, index: int, frame: Frame) -> str:
    if series.low is None or series.high is None or len(series.x) < 2:
        return ""
    (x, low), (_, high) = thin(series.x, series.low), thin(series.x, series.high)
    there = np.concatenate([frame.px(x), frame.px(x)[::-1]])
    back = np.concatenate([frame.py(high), frame.py(low)[::-1]])
    return f'<path class="band b{index}" d="{_path(there, back)}Z"/>'


def _path(x: Values, y: Values) -> str:
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True))


def _hovers(lines: Sequence[Series], frame: Frame, bands: int = 60) -> Iterator[str]:
    """Invisible columns that show the values under the pointer."""
    longest = max(lines, key=lambda s: len(s.x))
    x = np.unique(thin(longest.x, longest.x, bands)[0])
    edges = np.concatenate([[frame.x0], (x[1:] + x[:-1]) / 2, [frame.x1]])
    for centre, left, right in zip(x, frame.px(edges[:-1]), frame.px(edges[1:]), strict=True):
        values = "\n".join(f"{s.name}: {_value_at(s, centre, frame)}" for s in lines)
        yield (
            f'<rect class="hover" x="{left:.1f}" y="0" width="{max(right - left, 0):.1f}" height="1000">'
            f"<title>{escape(f'at {short(float(centre))}')}\n{escape(values)}</title></rect>"
        )


def _value_at(series: Series, x: float, frame: Frame) -> str:
    i = int(np.abs(series.x - x).argmin())
    text = frame.show(float(series.y[i]))
    if series.low is not None and series.high is not None:
        text += f" [{frame.show(float(series.low[i]))}, {frame.show(float(series.high[i]))}]"
    return text
