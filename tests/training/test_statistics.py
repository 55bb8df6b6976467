from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robo_rlft.training.statistics import (
    RESAMPLES,
    Interval,
    bootstrap,
    bootstrap_iqm,
    bootstrap_mean,
    interquartile_mean,
    wilson,
)

# Newcombe, 1998, Statistics in Medicine 17, 857-872, table I, method 3.
NEWCOMBE = [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]


@pytest.mark.parametrize(("successes", "episodes", "low", "high"), NEWCOMBE)
def test_wilson_gives_the_published_limits(successes: int, episodes: int, low: float, high: float) -> None:
    interval = wilson(successes, episodes)
    assert interval.mean == successes / episodes
    assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_limits_solve_the_score_equation(case: tuple[int, int]) -> None:
    """A limit p is where |rate - p| is z standard errors of p itself."""
    successes, episodes = case
    interval = wilson(successes, episodes)
    for p in {interval.low, interval.high} - {0.0, 1.0}:
        assert abs(interval.mean - p) == pytest.approx(1.959964 * math.sqrt(p * (1 - p) / episodes), rel=1e-5)
    assert 0 <= interval.low <= interval.mean <= interval.high <= 1


@pytest.mark.parametrize(("successes", "episodes"), [(0, 0), (3, 2), (-1, 5)])
def test_impossible_counts_are_refused(successes: int, episodes: int) -> None:
    with pytest.raises(ValueError, match="is not a rate"):
        wilson(successes, episodes)


def test_bootstrap_of_a_mean_has_the_quantiles_of_the_binomial() -> None:
    """The resampled mean of zeros and ones IS a binomial share, whose quantiles are known exactly."""
    n, ones = 50, 20
    cdf = np.cumsum([math.comb(n, k) * (ones / n) ** k * (1 - ones / n) ** (n - k) for k in range(n + 1)])
    exact = [int(np.searchsorted(cdf, q)) / n for q in (0.025, 0.975)]
    interval = bootstrap_mean(np.array([1.0] * ones + [0.0] * (n - ones)))
    assert interval.mean == pytest.approx(ones / n)
    assert [interval.low, interval.high] == pytest.approx(exact)


def test_bootstrap_is_the_same_every_time() -> None:
    values = np.random.default_rng(1).normal(size=50)
    assert bootstrap_mean(values) == bootstrap_mean(values)
    assert bootstrap_mean(values) != bootstrap_mean(values, seed=1)


def test_bootstrap_does_not_depend_on_how_the_resamples_are_split() -> None:
    """Many values: the resamples come in several blocks, all of them counted."""
    seen: list[int] = []

    def mean(samples: np.ndarray) -> np.ndarray:
        seen.append(len(samples))
        return samples.mean(axis=-1)

    interval = bootstrap(np.random.default_rng(0).normal(5, 2, size=2000), mean)
    assert len(seen) > 2
    assert sum(seen) == RESAMPLES + 1  # and the estimate itself
    assert (interval.high - interval.low) / 2 == pytest.approx(1.96 * 2 / math.sqrt(2000), rel=0.1)


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        bootstrap_mean(np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match="finite"):
        bootstrap_mean(np.array([]))


@pytest.mark.parametrize(
    ("values", "middle"),
    [([7.0], 7.0), ([1, 2, 3], 2.0), ([5, 1, 4, 2, 3], 3.0), ([1, 2, 3, 4, 5, 6, 7, 8], 4.5), ([0, 1, 2, 1e9], 1.5)],
)
def test_interquartile_mean_by_hand(values: list[float], middle: float) -> None:
    assert interquartile_mean(np.array(values, float)) == pytest.approx(middle)


def test_interquartile_mean_ignores_outliers_where_the_mean_does_not() -> None:
    values = np.concatenate([np.linspace(0, 1, 99), [1e6]])
    assert bootstrap_iqm(values).high < 1 < bootstrap_mean(values).mean


def test_disjoint_means_no_common_value() -> None:
    a, b, c = Interval(0.5, 0.4, 0.6), Interval(0.8, 0.7, 0.9), Interval(0.65, 0.6, 0.75)
    assert a.disjoint(b)
    assert b.disjoint(a)
    assert not a.disjoint(c)
    assert a.to_dict() == {"mean": 0.5, "low": 0.4, "high": 0.6}
