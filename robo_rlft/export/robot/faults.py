"""What can go wrong between a robot and its controller, on purpose: noise, latency, lost and reordered messages."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from robo_rlft.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True)
class Faults:
    """What is done to every message, each way.

    Attributes:
        latency_s: how late it arrives.
        jitter_s: how much later still at most, drawn uniformly.
        drop: probability that it is lost.
        reorder: probability that it is held back until after its successor.
        noise: standard deviation on each sensor value, as a share of `NOISE`.
        friction: factor on the friction of everything that touches.
    """

    latency_s: float = 0.0
    jitter_s: float = 0.0
    drop: float = 0.0
    reorder: float = 0.0
    noise: float = 0.0
    friction: float = 1.0

    def __post_init__(self) -> None:
        for name in ("latency_s", "jitter_s", "noise", "friction"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ConfigError(f"{name} is {getattr(self, name)}: give a number that is not negative")
        for name in ("drop", "reorder"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: give a probability, 0 to 1")


class Link(Generic[T]):
    """One way between two places. Messages come out when they are due, in the order in which they arrive.

    Args:
        faults: what happens to them.
        rng: decides about each.
        period_s: time between two messages; one that is held back arrives half a period after its successor.
    """

    def __init__(self, faults: Faults, rng: np.random.Generator, period_s: float) -> None:
        self._faults, self._rng, self._period_s = faults, rng, period_s
        self._waiting: list[tuple[float, int, T]] = []
        self.sent = self.dropped = self.reordered = 0

    def send(self, message: T, now_s: float) -> None:
        """Put one in."""
        faults, draws = self._faults, self._rng.uniform(size=3)
        self.sent += 1
        if draws[0] < faults.drop:
            self.dropped += 1
            return
        late = faults.latency_s + faults.jitter_s * draws[1]
        if draws[2] < faults.reorder:
            self.reordered += 1
            late += 1.5 * self._period_s
        heapq.heappush(self._waiting, (now_s + late, self.sent, message))

    def due(self, now_s: float) -> Iterator[T]:
        """Take out all that has arrived."""
        while self._waiting and self._waiting[0][0] <= now_s:
            yield heapq.heappop(self._waiting)[2]

    @property
    def next_s(self) -> float:
        """When the next one arrives, infinite if none is under way."""
        return self._waiting[0][0] if self._waiting else np.inf

    def clear(self) -> None:
        """Lose all that is under way."""
        self._waiting.clear()


NOISE = {"rad": 0.01, "rad/s": 0.2, "m": 0.0005, "m/s": 0.01, "unit": 0.02}
"""Standard deviations at `noise=1`, by unit: of joint encoders, of a gyroscope, of a tracked tool, of a unit vector."""
