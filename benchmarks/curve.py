"""A chart as an SVG picture of its own, in the report's colours, light and dark as its reader's screen."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from html import escape
from importlib import resources

import numpy as np

from robo_rlft.training.chart import Chart, Frame, Series, drawing, finite, frame_of, shade, short, ticks

WIDTH, HEIGHT = 760, 360
LEFT, TOP, RIGHT, BOTTOM = 64, 68, 24, 54
LINE = 20
"""Height of a line of the legend beyond the first, in pixels."""
"""Margins around the drawing area, in pixels."""
_CHARACTER = 6.6
"""About the width of one character of the legend, in pixels."""


def picture(chart: Chart) -> str:
    """The chart as an SVG file.

    Raises:
        ValueError: no series has a finite point.
    """
    lines = [line for line in map(finite, chart.series) if len(line.x)]
    if not lines:
        raise ValueError(f"chart '{chart.title}' has nothing to draw")
    frame, keys = frame_of(chart, lines), list(_keys(lines))
    drop = LINE * max((line for line, _ in keys), default=0)
    height = HEIGHT + drop
    size = f'width="{WIDTH - LEFT - RIGHT}" height="{HEIGHT - TOP - BOTTOM}"'
    area = f'<svg x="{LEFT}" y="{TOP}" {size} viewBox="0 0 1000 1000" preserveAspectRatio="none" overflow="visible">'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">',
        f"<title>{escape(chart.title)}</title><style>{_style()}</style>",
        f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="12"/>',
        f'<text class="title" x="20" y="28">{escape(chart.title)}</text>',
        *_legend(lines, keys),
        f'<g transform="translate(0 {drop})">' if drop else "<g>",
        f'{area}<g class="plot">{drawing(lines, frame)}</g></svg>',
        *_labels(frame),
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 14}" text-anchor="end">{escape(chart.x_label)}</text>',
        "</g></svg>",
    ]
    return "\n".join(parts) + "\n"


def _keys(lines: Sequence[Series]) -> Iterator[tuple[int, float]]:
    """Line of the legend and place in it of every key; a single series has none."""
    row, x = 0, 20.0
    for line in lines if len(lines) > 1 else ():
        width = 20 + _CHARACTER * len(line.name)
        if x > 20 and x + width > WIDTH - 20:
            row, x = row + 1, 20.0
        yield row, x
        x += width + 18


def _legend(lines: Sequence[Series], keys: Sequence[tuple[int, float]]) -> Iterator[str]:
    for i, (row, x) in enumerate(keys):
        yield f'<path class="key {shade(i)}" d="M{x:.0f} {46 + LINE * row}h14"/>'
        yield f'<text x="{x + 20:.0f}" y="{50 + LINE * row}">{escape(lines[i].name)}</text>'


def _labels(frame: Frame) -> Iterator[str]:
    width, height = (WIDTH - LEFT - RIGHT) / 1000, (HEIGHT - TOP - BOTTOM) / 1000
    for value in frame.y_ticks:
        y = TOP + height * float(frame.py(np.array(value)))
        yield f'<text x="{LEFT - 10}" y="{y + 4:.1f}" text-anchor="end">{frame.show(value)}</text>'
    for value in ticks(frame.x0, frame.x1):
        x = LEFT + width * float(frame.px(np.array(value)))
        yield f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{short(value, frame.x1)}</text>'


@cache
def _style() -> str:
    """The rules of the report's style sheet that colour a chart, and those of the texts."""
    sheet = resources.files("robo_rlft.training").joinpath("report.html").read_text(encoding="utf-8")
    colours = re.findall(r"^:root \{.*?^\}|^@media \(prefers-color-scheme: dark\) \{.*?^\}", sheet, re.M | re.S)
    lines = re.findall(r"^(?:\.s\d|\.dash|\.plot (?:path|\.(?:grid|line|raw|dot|band|b\d))).*$", sheet, re.M)
    own = [
        "text { font: 12px system-ui, sans-serif; fill: var(--soft); }",
        ".title { font-size: 15px; font-weight: 600; fill: var(--ink); }",
        ".card { fill: var(--card); stroke: var(--rule); }",
        ".key { stroke-width: 3; stroke-linecap: round; }",
    ]
    return "\n".join(["", *colours, *lines, *own, ""])
