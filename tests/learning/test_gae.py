"""Advantages against their definition: a weighted mean of n-step returns, episode by episode."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from robo_rlft.learning.common.gae import chunk_reward, gae

CHUNK = 3


def test_chunk_reward_by_hand() -> None:
    reward = torch.tensor([[1.0, 2.0, 4.0], [1.0, 0.0, 0.0]])
    assert chunk_reward(reward, 0.5).tolist() == [1 + 1 + 1, 1]
    assert chunk_reward(reward, 1.0).tolist() == [7, 1]


def definition(
    reward: Tensor, value: Tensor, final: Tensor, length: Tensor, ends: Tensor, done: Tensor, gamma: float, lam: float
) -> Tensor:
    """(1 - lam) sum_n lam^(n-1) (n-step return - V); the longest return takes the rest of the weight.

    One environment; `reward` [T, CHUNK] per control step, `final` the value of the observation after each chunk.
    """
    horizon = len(value)
    advantage = torch.zeros(horizon, dtype=torch.float64)
    for start in range(horizon):
        total, steps, left = 0.0, 0, 1.0
        for t in range(start, horizon):
            for i in range(int(length[t])):
                total += gamma**steps * float(reward[t, i])
                steps += 1
            tail = 0.0 if ends[t] else gamma**steps * float(final[t])
            last = bool(done[t]) or t == horizon - 1
            weight = left if last else left * (1 - lam)
            advantage[start] += weight * (total + tail - float(value[start]))
            left *= lam
            if last:
                break
    return advantage


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    horizon=st.integers(1, 9),
    gamma=st.sampled_from([0.9, 0.99, 1.0]),
    lam=st.sampled_from([0.0, 0.5, 0.95, 1.0]),
)
def test_against_the_definition(seed: int, horizon: int, gamma: float, lam: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    envs = 4
    draws = torch.randn(3, horizon, envs, generator=generator, dtype=torch.float64)
    kind = torch.randint(0, 5, (horizon, envs), generator=generator)
    terminated, truncated = kind == 0, kind == 1
    # Only an episode's last chunk is short.
    short = torch.randint(1, CHUNK + 1, (horizon, envs), generator=generator)
    length = torch.where(terminated | truncated, short, CHUNK)
    reward = torch.randn(horizon, envs, CHUNK, generator=generator, dtype=torch.float64)
    reward = reward * (torch.arange(CHUNK) < length[..., None])
    value, fresh, final = draws
    # Within an episode the value after a chunk is that before the next one; at its end it belongs to the true last
    # observation, and must not be mixed up with that of the fresh episode.
    done = terminated | truncated
    after = torch.cat([value[1:], fresh[:1]])
    next_value = torch.where(done, final, after)
    advantage, target = gae(chunk_reward(reward, gamma), value, next_value, length, terminated, truncated, gamma, lam)
    for env in range(envs):
        columns = [x[:, env] for x in (reward, value, next_value, length, terminated, done)]
        expected = definition(*columns, gamma=gamma, lam=lam)
        torch.testing.assert_close(advantage[:, env], expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(target, advantage + value)


def one(**changes: float | bool | int) -> float:
    """Advantage of the first of two chunks of one environment: r = 1 and 10, V = 2 and 4, V' = 4 and 8, gamma .5."""
    given: dict = {"terminated": False, "truncated": False, "length": 2, "next_value": 4.0} | changes
    column = {
        "reward": [1.0, 10.0],
        "value": [2.0, 4.0],
        "next_value": [given["next_value"], 8.0],
    }
    return float(
        gae(
            **{k: torch.tensor(v).view(2, 1) for k, v in column.items()},
            length=torch.tensor([[given["length"]], [2]]),
            terminated=torch.tensor([[given["terminated"]], [False]]),
            truncated=torch.tensor([[given["truncated"]], [False]]),
            gamma=0.5,
            lam=0.5,
        )[0][0]
    )


def test_ends_by_hand() -> None:
    """The discount of a chunk of two steps is .25: the second chunk's advantage is 10 + .25 * 8 - 4 = 8."""
    assert one() == pytest.approx(1 + 0.25 * 4 - 2 + 0.25 * 0.5 * 8)
    assert one(terminated=True) == pytest.approx(1 - 2), "nothing follows a termination"
    assert one(truncated=True, next_value=6.0) == pytest.approx(1 + 0.25 * 6 - 2), "the true last observation counts"
    assert one(truncated=True, length=1, next_value=6.0) == pytest.approx(1 + 0.5 * 6 - 2), "gamma ^ executed steps"


def test_constant_reward_has_no_advantage_under_the_true_value() -> None:
    """Reward 1 for ever is worth 1 / (1 - gamma), whatever the chunks' lengths."""
    gamma, worth = 0.9, 1 / (1 - 0.9)
    length = torch.tensor([[3], [1], [2]])
    reward = torch.tensor([[sum(gamma**i for i in range(int(n)))] for n in length], dtype=torch.float64)
    value = torch.full((3, 1), worth, dtype=torch.float64)
    never = torch.zeros(3, 1, dtype=torch.bool)
    advantage, target = gae(reward, value, value, length, never, never, gamma, 0.95)
    assert advantage.abs().max() < 1e-12
    assert math.isclose(float(target[0]), worth)
