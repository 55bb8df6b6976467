"""One measurement per row, the same for every bench: as JSON and as a table on the screen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class BenchRow:
    """One case of a bench.

    Attributes:
        name: what was measured.
        num_envs: batch size of the case; 0 where it has none.
        value: the figure, in `unit`; more is better.
        unit: its unit.
        limit_ratio: value over the limit measured in the same run (1 = at the limit); None without one.
        peer_ratios: value over each peer's, measured in the same run.
        detail: further figures of the case by name.
    """

    name: str
    num_envs: int
    value: float
    unit: str
    limit_ratio: float | None = None
    peer_ratios: dict[str, float] = field(default_factory=dict)
    detail: dict[str, float] = field(default_factory=dict)


def write_json(rows: Sequence[BenchRow], path: str | Path) -> list[dict[str, Any]]:
    """Write the rows as a JSON list and return them as plain dictionaries."""
    plain = [asdict(row) for row in rows]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(plain, indent=1) + "\n")
    return plain


def print_table(rows: Sequence[BenchRow], title: str, console: Console | None = None) -> None:
    """Show the rows with one column per peer."""
    peers = list(dict.fromkeys(peer for row in rows for peer in row.peer_ratios))
    table = Table(title=title)
    for column in ("case", "envs", "value", "unit", "of the limit", *(f"x {p}" for p in peers)):
        table.add_column(column, justify="left" if column in ("case", "unit") else "right")
    for row in rows:
        ratios = [f"{row.peer_ratios[p]:.2f}" if p in row.peer_ratios else "" for p in peers]
        limit = "" if row.limit_ratio is None else f"{row.limit_ratio:.3f}"
        table.add_row(row.name, str(row.num_envs or ""), f"{row.value:,.0f}", row.unit, limit, *ratios)
    (console or Console()).print(table)
