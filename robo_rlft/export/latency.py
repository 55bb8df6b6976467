"""How long a controller takes: the tail counts, because a robot waits for every call."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from robo_rlft.export.acting import ActingPolicy

WARM_UP = 50
"""Calls before the measurement: the first ones allocate memory and fill caches."""


@dataclass(frozen=True)
class Latency:
    """Percentiles of one kind of call, in seconds.

    Attributes:
        calls: how many were measured.
        p50, p99, p999: the 50th, 99th and 99.9th percentile: the smallest measured time that so many do not exceed.
        worst: the longest.
    """

    calls: int
    p50: float
    p99: float
    p999: float
    worst: float

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Latency:
        """From measured times.

        Raises:
            ValueError: there are none.
        """
        ordered = sorted(seconds)
        if not ordered:
            raise ValueError("a latency needs at least one call")
        return cls(len(ordered), _rank(ordered, 500), _rank(ordered, 990), _rank(ordered, 999), ordered[-1])

    def to_dict(self) -> dict[str, float]:
        """Microseconds, for JSON."""
        return {
            "calls": self.calls,
            "p50_us": self.p50 * 1e6,
            "p99_us": self.p99 * 1e6,
            "p99.9_us": self.p999 * 1e6,
            "max_us": self.worst * 1e6,
        }


@dataclass(frozen=True)
class Timings:
    """The two times of a call: the model alone, and question to answer between two processes or machines."""

    inference: Latency
    round_trip: Latency


def measure(policy: ActingPolicy, ask: Callable[[], object], calls: int) -> Timings:
    """Time `calls` calls of one input, after a warm-up.

    Args:
        policy: what is asked.
        ask: one call.
        calls: how many.
    """
    for _ in range(WARM_UP):
        ask()
    inference, round_trip = [], []
    for _ in range(calls):
        start = time.perf_counter()
        ask()
        round_trip.append(time.perf_counter() - start)
        inference.append(policy.inference_s)
    return Timings(Latency.of(inference), Latency.of(round_trip))


def _rank(ordered: list[float], per_mille: int) -> float:
    """Nearest-rank percentile; in integers, so that p99 of 1000 calls is the 990th."""
    return ordered[math.ceil(per_mille * len(ordered) / 1000) - 1]
