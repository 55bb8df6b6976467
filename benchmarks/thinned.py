"""A run's metrics as a small CSV table, and back.

A row stands for the rounds of training since the row before: `rounds` says how many, `step` and `wall` are those of the
last, every other figure is their mean. Evaluations keep rows of their own, with `rounds` 0.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from robo_rlft.training.chart import Values
from robo_rlft.training.metrics import Columns

ROWS = 200
"""Most rows of a table."""
_FIGURES = ("rollout/return", "rollout/success", "ppo/kl", "bc/loss", "bc/validation")
_TIME = "time/"
_EVALUATION = ("evaluation/score", "evaluation/low", "evaluation/high")


def to_csv(columns: Columns, rows: int = ROWS) -> str:
    """The figures that the result pages show, thinned.

    Args:
        columns: metrics by name, with `step` and `wall`.
        rows: most rows of the table.
    """
    kept = [name for name in columns if name in (*_FIGURES, *_EVALUATION) or name.startswith(_TIME)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", "wall", "rounds", *kept])
    writer.writerows(_rows(columns, kept, rows))
    return text.getvalue()


def from_csv(text: str) -> Columns:
    """Inverse of `to_csv`; an empty cell is NaN."""
    header, *rows = csv.reader(io.StringIO(text))
    cells = [[float(cell) if cell else math.nan for cell in row] for row in rows]
    return dict(zip(header, np.array(cells, np.float64).reshape(-1, len(header)).T.copy(), strict=True))


def _rows(columns: Columns, names: Sequence[str], rows: int) -> Iterator[list[str]]:
    groups = _groups(columns, rows)
    for group, rounds in sorted(groups, key=lambda entry: entry[0][-1]):
        head = [f"{columns['step'][group[-1]]:.0f}", f"{columns['wall'][group[-1]]:.3f}", str(rounds)]
        yield head + [_cell(columns[name][group]) for name in names]


def _groups(columns: Columns, rows: int) -> Iterator[tuple[Int[ndarray, " row"], int]]:
    """Indices of the original rows that make one row each, and how many rounds they are."""
    evaluated = np.isfinite(columns.get("evaluation/score", np.full(len(columns["step"]), math.nan)))
    points = _spread(np.flatnonzero(evaluated), rows // 4)
    rounds = np.flatnonzero(~evaluated)
    yield from ((points[i : i + 1], 0) for i in range(len(points)))
    if len(rounds):
        parts = np.array_split(rounds, min(len(rounds), rows - len(points)))
        yield from ((part, len(part)) for part in parts)


def _spread(indices: Int[ndarray, " row"], most: int) -> Int[ndarray, " kept"]:
    """At most `most` of them, evenly spaced, with the first and the last."""
    if len(indices) <= most:
        return indices
    return indices[np.linspace(0, len(indices) - 1, most).round().astype(int)]


def _cell(values: Values) -> str:
    there = values[~np.isnan(values)]
    return f"{there.mean():.6g}" if len(there) else ""
