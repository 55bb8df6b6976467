"""Means with honest intervals: Wilson's for success, Student's for a handful of runs, else the percentile bootstrap."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float
from numpy import ndarray

RESAMPLES = 10_000
"""Bootstrap resamples: the Monte-Carlo error of a 95 % limit is then about 1 % of the interval's width."""
_ELEMENTS = 4_000_000
"""Resampled values held at once (32 MB)."""

Statistic = Callable[[Float[ndarray, "resample sample"]], Float[ndarray, " resample"]]


@dataclass(frozen=True)
class Interval:
    """An estimate and its confidence interval, in the unit of the data.

    Attributes:
        mean: the estimate.
        low: lower confidence limit.
        high: upper confidence limit.
    """

    mean: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """Keys `mean`, `low`, `high`, for JSON."""
        return {"mean": self.mean, "low": self.low, "high": self.high}

    def disjoint(self, other: Interval) -> bool:
        """The two intervals share no value."""
        return self.high < other.low or other.high < self.low


def wilson(successes: int, episodes: int, confidence: float = 0.95) -> Interval:
    """Success rate with Wilson's score interval (Wilson, 1927, J. Am. Stat. Assoc. 22, 209-212).

    Unlike the normal approximation it is right near 0 and 1, where success rates of robots end up.

    Raises:
        ValueError: no episodes, or a number of successes they cannot have.
    """
    if not 0 <= successes <= episodes or episodes == 0:
        raise ValueError(f"{successes} successes in {episodes} episodes is not a rate")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate, square = successes / episodes, z * z / episodes
    centre = (rate + square / 2) / (1 + square)
    half = z / (1 + square) * math.sqrt(rate * (1 - rate) / episodes + square / (4 * episodes))
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == episodes else centre + half
    return Interval(rate, low, high)


def student_mean(values: Float[ndarray, " sample"], confidence: float = 0.95) -> Interval:
    """Mean of a few independent runs with Student's t interval (Student, 1908, Biometrika 6, 1-25).

    The bootstrap of three values cannot reach beyond them and covers far less than it says.

    Raises:
        ValueError: fewer than two values, or values that are not finite.
    """
    data = np.asarray(values, np.float64).ravel()
    if data.size < 2 or not np.isfinite(data).all():
        raise ValueError(f"an interval over runs needs at least two finite values; got {data.tolist()}")
    mean = float(data.mean())
    half = _student_quantile(data.size - 1, confidence) * float(data.std(ddof=1)) / math.sqrt(data.size)
    return Interval(mean, mean - half, mean + half)


def bootstrap_mean(values: Float[ndarray, " sample"], confidence: float = 0.95, seed: int = 0) -> Interval:
    """Mean with its percentile bootstrap interval (Efron and Tibshirani, 1993, chapter 13).

    Raises:
        ValueError: no values, or values that are not finite.
    """
    return bootstrap(values, lambda samples: samples.mean(axis=-1), confidence, seed)


def bootstrap_iqm(values: Float[ndarray, " sample"], confidence: float = 0.95, seed: int = 0) -> Interval:
    """Interquartile mean with its percentile bootstrap interval (Agarwal et al., 2021, arXiv 2108.13264).

    Raises:
        ValueError: no values, or values that are not finite.
    """
    return bootstrap(values, interquartile_mean, confidence, seed)


def interquartile_mean(samples: Float[ndarray, "*batch sample"]) -> Float[ndarray, "*batch"]:
    """Mean over the last axis of what is left when a quarter (rounded down) is cut from either end."""
    size = samples.shape[-1]
    cut = size // 4
    middle = np.partition(samples, [cut, size - cut - 1], axis=-1)[..., cut : size - cut]
    return middle.mean(axis=-1)


def bootstrap(
    values: Float[ndarray, " sample"], statistic: Statistic, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """Percentile bootstrap of a statistic: the same values and seed always give the same interval.

    Args:
        values: independent samples, one per episode or seed.
        statistic: maps resamples [R, N] to one figure each, [R].
        confidence: probability the interval aims to cover.
        seed: seed of the resampling.

    Raises:
        ValueError: no values, or values that are not finite.
    """
    data = np.asarray(values, np.float64).ravel()
    if data.size == 0 or not np.isfinite(data).all():
        raise ValueError(
            f"an interval needs finite values; got {data.size} with {np.sum(~np.isfinite(data))} not finite"
        )
    draws = _resampled(data, statistic, np.random.default_rng(seed))
    low, high = np.quantile(draws, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Interval(float(statistic(data[None])[0]), float(low), float(high))


def _resampled(
    data: Float[ndarray, " sample"], statistic: Statistic, rng: np.random.Generator
) -> Float[ndarray, " resample"]:
    rows = max(1, _ELEMENTS // data.size)
    sizes = [min(rows, RESAMPLES - start) for start in range(0, RESAMPLES, rows)]
    return np.concatenate([statistic(data[rng.integers(data.size, size=(n, data.size))]) for n in sizes])


def _student_quantile(freedom: int, confidence: float) -> float:
    """The t with P(|T| < t) = confidence.

    With t = sqrt(freedom) tan(a), P(|T| < t) is the share of the integral of cos(a)^(freedom - 1) over [0, pi / 2]
    that lies below a: a smooth function on a finite interval, so a fine sum inverts it.
    """
    angle = np.linspace(0.0, math.pi / 2, 200_001)
    density = np.cos(angle) ** (freedom - 1)
    share = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return math.sqrt(freedom) * math.tan(float(np.interp(confidence * share[-1], share, angle)))
