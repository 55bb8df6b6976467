"""What a person sees while a run works: a live line in a terminal, one plain line every ten seconds elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from robo_rlft.training.config import RunConfig

console = Console(highlight=False)
"""The one console; messages printed through it appear above a live line instead of tearing it."""


def share_done(limits: RunConfig, share: float, env_steps: int, wall: float) -> float:
    """Share of a run that is done, by whichever of its limits is nearest.

    Args:
        limits: environment steps and wall time of the run.
        share: by rounds.
        env_steps: done so far.
        wall: seconds so far.
    """
    shares = [share]
    shares += [env_steps / limits.max_steps] if limits.max_steps else []
    shares += [wall / limits.wall_seconds] if limits.wall_seconds else []
    return min(max(shares), 1.0)


class Progress:
    """Progress of one loop: bar, rate, time left and a few live figures.

    Args:
        title: what is going on, e.g. "fine-tune".
        total: units until the end.
        unit: what is counted, e.g. "env steps" or "updates".
        done: units done before this process started (a resumed run); they do not count for the rate.
        interval_s: seconds between two lines when the output is not a terminal.
    """

    def __init__(self, title: str, total: int, *, unit: str, done: int = 0, interval_s: float = 10.0) -> None:
        self.title, self.total, self.unit, self.done, self.interval_s = title, total, unit, done, interval_s
        self._fraction, self._values = done / max(total, 1), dict[str, float]()
        now = time.monotonic()
        self._start, self._start_fraction, self._printed = now, self._fraction, now
        self._marks: deque[tuple[float, int]] = deque([(now, done)], maxlen=64)
        self._live = Live(self, console=console, refresh_per_second=4) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()
        elif self._marks[-1][0] > self._printed:
            console.print(self.line(), soft_wrap=True, markup=False)

    def update(self, done: int, values: Mapping[str, float] | None = None, *, fraction: float | None = None) -> None:
        """Report where the loop is.

        Args:
            done: units done in all.
            values: figures of the live line; they stay until replaced.
            fraction: share of the loop that is done, where that is not done/total (a limit in wall time).
        """
        self.done = done
        self._fraction = done / max(self.total, 1) if fraction is None else fraction
        self._values.update(values or {})
        now = time.monotonic()
        self._marks.append((now, done))
        if not self._live and now - self._printed >= self.interval_s:
            self._printed = now
            console.print(self.line(), soft_wrap=True, markup=False)

    @property
    def rate(self) -> float:
        """Units per second over the most recent reports; 0 before the second report."""
        (t0, n0), (t1, n1) = self._marks[0], self._marks[-1]
        return (n1 - n0) / (t1 - t0) if t1 > t0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds to the end from the mean pace of this process; None before the first report."""
        advanced = self._fraction - self._start_fraction
        if advanced <= 0:
            return None
        return (self._marks[-1][0] - self._start) * (1 - self._fraction) / advanced

    def line(self) -> str:
        """The whole state as one plain line."""
        share = f"{100 * min(self._fraction, 1):3.0f} %"
        parts = [f"{self.title} {share}", f"{_count(self.done)} {self.unit}", *self._figures()]
        return "  ".join(parts)

    def __rich__(self) -> Table:
        grid = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=1.0, completed=min(self._fraction, 1.0), width=24)
        counted = f"{_count(self.done)} {self.unit}"
        grid.add_row(Text(self.title, "bold"), bar, counted, Text("  ".join(self._figures()), "dim"))
        return grid

    def _figures(self) -> list[str]:
        parts = [f"{_count(self.rate)}/s"] if self.rate else []
        if self.seconds_left is not None:
            parts.append(f"{duration(self.seconds_left)} left")
        return parts + [f"{name} {value:.4g}" for name, value in self._values.items()]


def summary_table(title: str, rows: Sequence[Mapping[str, object]]) -> Table:
    """Print a table; the keys of the first row are its columns, other rows leave out what they do not have.

    Returns:
        The table that was printed.
    """
    table = Table(title=title, title_justify="left", title_style="bold")
    for name in rows[0] if rows else ():
        numeric = isinstance(rows[0][name], int | float)
        table.add_column(name, justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*(_cell(row.get(name, "")) for name in rows[0]))
    console.print(table)
    return table


def duration(seconds: float) -> str:
    """Seconds in the two largest units that matter: `42 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _count(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10 or value == int(value) else f"{value:.2g}"
