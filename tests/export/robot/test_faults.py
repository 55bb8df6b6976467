from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robo_rlft.errors import ConfigError
from robo_rlft.export.robot.faults import Faults, Link


def link(**given: float) -> Link[int]:
    return Link(Faults(**given), np.random.default_rng(0), 0.02)


@given(st.lists(st.floats(0, 10), max_size=20).map(sorted))
def test_without_faults_everything_arrives_at_once_in_order(times: list[float]) -> None:
    way = link()
    for i, time in enumerate(times):
        way.send(i, time)
        assert list(way.due(time)) == [i]
    assert way.next_s == np.inf


def test_latency_is_kept_to_the_instant() -> None:
    way = link(latency_s=0.03)
    way.send(1, 1.0)
    assert way.next_s == pytest.approx(1.03)
    assert list(way.due(1.0299)) == []
    assert list(way.due(1.0301)) == [1]


def test_shares_of_lost_and_reordered_messages() -> None:
    way = link(drop=0.2, reorder=0.1)
    for i in range(20000):
        way.send(i, 0.02 * i)
    arrived = list(way.due(np.inf))
    assert way.dropped == 20000 - len(arrived)
    # Five standard deviations of a binomial.
    assert abs(way.dropped - 4000) < 5 * np.sqrt(20000 * 0.2 * 0.8)
    assert abs(way.reordered - 1600) < 5 * np.sqrt(16000 * 0.1 * 0.9)
    behind = sum(b < a for a, b in pairwise(arrived))
    assert way.reordered * 0.6 < behind <= way.reordered


@pytest.mark.parametrize("given", [{"drop": 1.1}, {"reorder": -0.1}, {"latency_s": -1.0}, {"noise": np.nan}])
def test_impossible_faults_are_refused(given: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(given))):
        Faults(**given)
