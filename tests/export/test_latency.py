from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robo_rlft.export.latency import Latency


def test_percentiles_of_a_known_series() -> None:
    seconds = np.random.default_rng(0).permutation(np.arange(1, 1001)) * 1e-6
    got = Latency.of(seconds.tolist())
    assert (got.calls, got.worst) == (1000, pytest.approx(1000e-6))
    assert (got.p50, got.p99, got.p999) == pytest.approx((500e-6, 990e-6, 999e-6))
    assert got.to_dict()["p99.9_us"] == pytest.approx(999)


def test_one_slow_call_in_a_thousand_shows_only_beyond_the_tail() -> None:
    got = Latency.of([1.0] * 999 + [9.0])
    assert (got.p999, got.worst) == (1.0, 9.0)
    assert Latency.of([1.0] * 998 + [9.0] * 2).p999 == 9.0


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=50))
def test_so_many_calls_do_not_exceed_a_percentile(seconds: list[float]) -> None:
    got = Latency.of(seconds)
    for share, value in ((0.5, got.p50), (0.99, got.p99), (0.999, got.p999)):
        assert value in seconds
        assert np.mean(np.array(seconds) <= value) >= share
        assert np.mean(np.array(seconds) < value) < share


def test_no_calls_have_no_latency() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Latency.of([])
