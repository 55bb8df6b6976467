"""What a server counts: for Prometheus while it runs, and as a table when it ends."""

from __future__ import annotations

import bisect
import math
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

BOUNDS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Upper bounds of the histograms of times, in seconds."""
BOUNDS_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Upper bounds of the histogram of rows per inference."""
KEPT = 100_000
"""Newest values that the table's percentiles are of; the histograms know all."""
PREFIX = "robo_rlft_serve"


class Histogram:
    """Counts below fixed bounds, and the newest values themselves.

    Args:
        bounds: ascending upper bounds, inclusive.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds, self.counts = tuple(bounds), [0] * (len(bounds) + 1)
        self.total, self.newest = 0.0, deque[float](maxlen=KEPT)

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.total += value
        self.newest.append(value)

    @property
    def count(self) -> int:
        """How many values were added."""
        return sum(self.counts)

    def quantile(self, per_mille: int) -> float:
        """Nearest-rank percentile of the newest values; NaN without any."""
        ordered = sorted(self.newest)
        return ordered[math.ceil(per_mille * len(ordered) / 1000) - 1] if ordered else math.nan

    def lines(self, name: str) -> Iterator[str]:
        """Prometheus' text form."""
        below = 0
        for bound, count in zip((*self.bounds, "+Inf"), self.counts, strict=True):
            below += count
            yield f'{name}_bucket{{le="{bound}"}} {below}'
        yield f"{name}_sum {self.total!r}"
        yield f"{name}_count {below}"


@dataclass
class Statistics:
    """Of one server.

    Attributes:
        requests: by outcome: `answered`, `superseded`, `refused` (the client's fault), `failed` (ours), `lost` (the
            client had gone).
        rejected: connections that were not let in, by reason: `token`, `full`.
        closed: connections by the reason of their end.
        clients: connected at present.
        bytes_in, bytes_out: of messages.
        inference_s: one inference.
        queue_s: from a request's arrival to the start of its inference.
        rows: rows of one inference.
    """

    requests: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    closed: Counter[str] = field(default_factory=Counter)
    clients: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    inference_s: Histogram = field(default_factory=lambda: Histogram(BOUNDS_S))
    queue_s: Histogram = field(default_factory=lambda: Histogram(BOUNDS_S))
    rows: Histogram = field(default_factory=lambda: Histogram(BOUNDS_ROWS))

    def prometheus(self) -> str:
        """Prometheus' text exposition format, version 0.0.4."""
        lines: list[str] = []
        for name, label, counter in self._counters():
            lines.append(f"# TYPE {PREFIX}_{name} counter")
            lines += [f'{PREFIX}_{name}{{{label}="{value}"}} {count}' for value, count in sorted(counter.items())]
        for name, value in (("received_bytes_total", self.bytes_in), ("sent_bytes_total", self.bytes_out)):
            lines += [f"# TYPE {PREFIX}_{name} counter", f"{PREFIX}_{name} {value}"]
        lines += [f"# TYPE {PREFIX}_clients gauge", f"{PREFIX}_clients {self.clients}"]
        for name, histogram in self._histograms():
            lines += [f"# TYPE {PREFIX}_{name} histogram", *histogram.lines(f"{PREFIX}_{name}")]
        return "\n".join(lines) + "\n"

    def table(self) -> str:
        """Plain text for the end of a run."""
        counts = [*self.requests.items(), *((f"not let in ({k})", n) for k, n in self.rejected.items())]
        rows = [("requests", ", ".join(f"{n} {k}" for k, n in counts) or "none")]
        for name, histogram, unit, factor in (
            ("inference", self.inference_s, "ms", 1e3),
            ("waiting", self.queue_s, "ms", 1e3),
            ("rows per inference", self.rows, "", 1.0),
        ):
            if histogram.count:
                each = (f"{label} {histogram.quantile(q) * factor:.3g}" for label, q in _SHOWN)
                rows.append((name, f"{'  '.join(each)} {unit}".rstrip()))
        rows.append(("traffic", f"{self.bytes_in / 1e6:.3g} MB in, {self.bytes_out / 1e6:.3g} MB out"))
        return "\n".join(f"  {name:<20}{value}" for name, value in rows)

    def _counters(self) -> tuple[tuple[str, str, Counter[str]], ...]:
        return (
            ("requests_total", "outcome", self.requests),
            ("rejected_connections_total", "reason", self.rejected),
            ("closed_connections_total", "reason", self.closed),
        )

    def _histograms(self) -> tuple[tuple[str, Histogram], ...]:
        return (
            ("inference_seconds", self.inference_s),
            ("queue_seconds", self.queue_s),
            ("inference_rows", self.rows),
        )


_SHOWN = (("p50", 500), ("p99", 990), ("p99.9", 999))
