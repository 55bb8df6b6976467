"""The bandit and the buffer of starts against hand computations and toys whose best arm is known."""

from __future__ import annotations

import numpy as np
import pytest

from robo_rlft.learning.curriculum import Bandit, StartStates, in_spreads


def test_an_arms_q_moves_towards_its_mean_absolute_advantage() -> None:
    bandit = Bandit(3, alpha=0.25, temperature=1.0)
    bandit.update(np.array([0, 0, 2]), np.array([1.0, -3.0, 0.4]))
    np.testing.assert_allclose(bandit.q, [2.0, 2.0, 0.4], err_msg="an arm that was not tried counts as the best")
    bandit.update(np.array([0, 1, 0]), np.array([-1.0, 0.6, 2.0]))
    np.testing.assert_allclose(bandit.q, [0.25 * 1.5 + 0.75 * 2.0, 0.6, 0.4])


def test_probabilities_are_boltzmanns() -> None:
    bandit = Bandit(2, alpha=1.0, temperature=0.5)
    np.testing.assert_allclose(bandit.probabilities, [0.5, 0.5])
    bandit.update(np.array([0, 1]), np.array([1.0, 0.5]))
    np.testing.assert_allclose(bandit.probabilities, [np.e / (1 + np.e), 1 / (1 + np.e)])
    drawn = bandit.sample(40_000, np.random.default_rng(0))
    assert np.mean(drawn == 0) == pytest.approx(np.e / (1 + np.e), abs=4 * 0.5 / 200)
    bandit.update(np.array([0, 1]), np.array([1e6, 0.0]))
    assert bandit.probabilities.tolist() == [1.0, 0.0], "large values must not overflow"


def test_an_arm_that_had_one_poor_round_is_asked_again() -> None:
    rng, bandit = np.random.default_rng(0), Bandit(20, alpha=0.3, temperature=0.05, explore=0.1)
    bandit.update(np.arange(20), np.r_[0.0, np.ones(19)])
    assert bandit.probabilities[0] == pytest.approx(0.1 / 20, rel=1e-3)
    assert bandit.probabilities.sum() == pytest.approx(1)
    for _ in range(300):
        arms = bandit.sample(16, rng)
        bandit.update(arms, np.where(arms == 0, 2.0, 1.0))
    assert bandit.probabilities[0] > 0.8


def test_advantages_are_scaled_and_not_centred() -> None:
    np.testing.assert_allclose(in_spreads(np.array([3.0, 3.0, 0.0, 0.0])), np.array([2, 2, 0, 0]) / np.sqrt(2))
    np.testing.assert_allclose(in_spreads(1e-3 * np.array([3.0, -1.0])), in_spreads(np.array([3.0, -1.0])))
    assert in_spreads(np.zeros(3)).tolist() == [0, 0, 0]


def test_the_bandit_follows_what_is_being_learned() -> None:
    """Success at arm c needs skill c; one learns where the outcome is open: the frontier moves, the choice with it."""
    rng, bandit = np.random.default_rng(0), Bandit(4, alpha=0.3, temperature=0.15)
    skill, favourites = 0.0, []
    for _ in range(400):
        arms = bandit.sample(64, rng)
        chance = 1 / (1 + np.exp(-6 * (skill - np.arange(4))))
        success = rng.random(64) < chance[arms]
        # Advantages as a perfect value function leaves them: what happened minus what was to be expected.
        advantage = success - chance[arms]
        bandit.update(arms, in_spreads(advantage))
        skill += 0.03 * np.mean(chance[arms] * (1 - chance[arms])) * 4
        favourites.append((int(bandit.probabilities.argmax()), int(np.abs(skill - np.arange(4)).argmin())))
    chosen, frontier = np.array(favourites[20:]).T
    assert np.mean(chosen == frontier) > 0.85
    assert set(frontier) == {0, 1, 2, 3}, "the toy never came to its last arm"


def test_the_bandits_way_is_faster_than_all_arms_alike() -> None:
    def final_skill(temperature: float) -> float:
        rng, bandit, skill = np.random.default_rng(1), Bandit(6, 0.3, temperature), 0.0
        for _ in range(150):
            arms = bandit.sample(64, rng)
            chance = 1 / (1 + np.exp(-6 * (skill - np.arange(6))))[arms]
            bandit.update(arms, in_spreads((rng.random(64) < chance) - chance))
            skill += 0.1 * np.mean(chance * (1 - chance)) * 4
        return float(skill)

    assert final_skill(0.15) > 1.3 * final_skill(1e9)


def test_a_starts_score_is_the_mean_of_p_times_one_minus_p() -> None:
    starts = StartStates(4, alpha=1e-9, binary=True)
    for _ in range(2):
        starts.add({"x": np.zeros(1)}, 0, np.zeros(len(starts), bool))
    for outcome in (1.0, 1.0, 0.0, 1.0, 1.0):
        starts.update(1, outcome)
    rng = np.random.default_rng(0)
    p = rng.beta(4.5, 1.5, 400_000)
    assert starts.score[1] == pytest.approx(float(np.mean(p * (1 - p))), abs=5e-4)
    assert starts.score[0] == pytest.approx(1 / 8), "nothing is known: the mean under Jeffreys' prior"


def test_open_starts_are_replayed_and_sure_ones_are_not() -> None:
    rng, starts = np.random.default_rng(0), StartStates(3, alpha=0.1, binary=True)
    chance = [0.0, 0.5, 1.0]
    for i in range(3):
        starts.add({"x": np.full(1, i)}, 0, np.zeros(i, bool))
    counts = np.zeros(3)
    for _ in range(3000):
        slot = starts.sample(0, rng)
        assert slot is not None
        starts.update(slot, float(rng.random() < chance[slot]))
        counts[slot] += 1
    expected = np.array([0.5 * 10.5 / (11 * 12), 0.0, 0.5 * 10.5 / (11 * 12)])  # ten outcomes are remembered
    np.testing.assert_allclose(starts.score[[0, 2]], expected[[0, 2]], rtol=0.02)
    assert counts[1] / counts.sum() > 0.6


def test_old_outcomes_are_forgotten() -> None:
    starts = StartStates(1, alpha=0.2, binary=True)
    starts.add({"x": np.zeros(1)}, 0, np.zeros(0, bool))
    for outcome in [0.0] * 40 + [1.0] * 2:
        starts.update(0, outcome)
    weights = 0.8 ** np.arange(42)
    a, n = weights[:2].sum() + 0.5, weights.sum() + 1
    assert starts.score[0] == pytest.approx(a * (n - a) / (n * (n + 1)), rel=1e-6)


def test_returns_are_scored_by_their_spread() -> None:
    rng, starts = np.random.default_rng(0), StartStates(2, alpha=0.01, binary=False)
    for _ in range(2):
        starts.add({"x": np.zeros(1)}, 0, np.zeros(len(starts), bool))
    assert starts.score.tolist() == [0, 0]
    assert starts.sample(0, rng) in (0, 1), "without scores all are alike"
    for _ in range(600):
        starts.update(0, rng.normal(50.0, 1.0))
        starts.update(1, rng.normal(50.0, 3.0))
    assert starts.score[1] / starts.score[0] == pytest.approx(3.0, rel=0.2)


def test_only_starts_of_the_variant_are_drawn() -> None:
    starts, rng = StartStates(8, 0.1, binary=True), np.random.default_rng(0)
    for i in range(6):
        starts.add({"x": np.full(1, i)}, i % 2, np.zeros(i, bool))
    assert {starts.sample(1, rng) for _ in range(100)} == {1, 3, 5}
    assert starts.sample(2, rng) is None


def test_a_full_buffer_gives_up_the_least_learnable_start_that_is_not_in_use() -> None:
    starts = StartStates(3, alpha=0.1, binary=True)
    for i in range(3):
        starts.add({"x": np.full(1, i)}, 0, np.zeros(i, bool))
    for slot, outcomes in enumerate(([1, 1, 1, 1], [0, 1, 0, 1], [1, 1])):
        for outcome in outcomes:
            starts.update(slot, float(outcome))
    assert starts.add({"x": np.full(1, 9)}, 1, np.array([True, False, False])) == 2
    assert starts.states[2]["x"].tolist() == [9]
    assert (starts.variant[2], starts.count[2]) == (1, 0)
    assert starts.add({"x": np.full(1, 9)}, 1, np.ones(3, bool)) is None


def test_saved_and_loaded_they_go_on_alike() -> None:
    bandit, starts, rng = Bandit(3, 0.2, 0.5), StartStates(4, 0.1, binary=False), np.random.default_rng(0)
    bandit.update(np.array([0, 1]), np.array([0.3, 0.9]))
    for i in range(3):
        starts.add({"x": rng.normal(size=2), "n": np.array(i)}, i % 2, np.zeros(i, bool))
        starts.update(i, float(rng.normal()))
    again, others = Bandit(3, 0.2, 0.5), StartStates(4, 0.1, binary=False)
    again.load_state_dict(bandit.state_dict())
    others.load_state_dict(starts.state_dict())
    np.testing.assert_array_equal(again.probabilities, bandit.probabilities)
    np.testing.assert_array_equal(others.score, starts.score)
    for one, two in zip(starts.states, others.states, strict=True):
        assert one.keys() == two.keys()
        assert all(np.array_equal(one[k], two[k]) for k in one)
    empty = StartStates(4, 0.1, binary=True)
    empty.load_state_dict(StartStates(4, 0.1, binary=True).state_dict())
    assert len(empty) == 0
