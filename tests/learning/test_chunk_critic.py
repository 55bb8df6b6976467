"""The critic of chunks: returns by hand, a known Q recovered, and what measures it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from robo_rlft.learning.chunk_critic import (
    Experience,
    critic_loss,
    explained_variance,
    ranking_accuracy,
    returns,
    targets,
    values,
)
from robo_rlft.policies.chunk_critic import ChunkCritic
from robo_rlft.policies.condition import Cond


def experience(reward: list[float], executed: list[int], ends: str) -> Experience:
    """One environment; `ends` has a letter per chunk: t terminated, c cut by the clock, - neither."""
    zeros = torch.zeros(len(reward), 1, 1, dtype=torch.float64)

    def column(x: list[float] | list[int] | list[bool]) -> Tensor:
        return torch.tensor(x)[:, None]

    return Experience(
        zeros, zeros[..., None], zeros, zeros[..., None], column(reward).double(), column(executed),
        column([e == "t" for e in ends]), column([e == "c" for e in ends]),
    )  # fmt: skip


def column(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)[:, None]


def test_monte_carlo_returns_by_hand() -> None:
    """gamma = 1/2; chunks of 2 steps, the last of an episode cut short; the values of chunks do not matter."""
    given = experience([1, 2, 4, 8], [2, 2, 1, 2], "--t-")
    found = returns(column(9, 9, 9, 9), column(7, 7, 7, 100), given, 0.5, 1.0)
    assert found.flatten().tolist() == [1 + (2 + 4 / 4) / 4, 2 + 4 / 4, 4, 8 + 100 / 4]


def test_an_episode_that_the_clock_cut_goes_on_in_its_own_last_observation() -> None:
    given = experience([1, 2, 4], [2, 1, 2], "-ct")
    found = returns(column(9, 9, 9), column(7, 40, 7), given, 0.5, 1.0)
    assert found.flatten().tolist() == [1 + (2 + 40 / 2) / 4, 2 + 40 / 2, 4]


def test_lambda_zero_looks_one_chunk_ahead() -> None:
    given = experience([1, 2, 4], [2, 2, 2], "--t")
    found = returns(column(10, 20, 30), column(7, 7, 7), given, 0.5, 0.0)
    assert found.flatten().tolist() == [1 + 20 / 4, 2 + 30 / 4, 4]


def two_chunk_episodes(rows: int, gamma: float, seed: int) -> tuple[Experience, Tensor]:
    """Episodes of two chunks of two steps: the first is paid s a, the second 1 + a^2. Returns them and their Q."""
    generator = torch.Generator().manual_seed(seed)
    s, a, b = (torch.rand(rows, generator=generator) * 2 - 1 for _ in range(3))
    cond = torch.stack([torch.stack([s, torch.zeros(rows)], -1), torch.stack([s, torch.ones(rows)], -1)])
    action = torch.stack([a, b]).view(2, rows, 1, 1).expand(2, rows, 2, 1)
    reward = torch.stack([s * a, 1 + b**2])
    ended = torch.tensor([False, True])[:, None].expand(2, rows)
    made = Experience(
        cond, action, cond.roll(-1, 0), action, reward, torch.full((2, rows), 2), ended, torch.zeros_like(ended)
    )
    # b is drawn anew in every episode: what follows is worth E[1 + b^2] = 4/3.
    return made, torch.stack([s * a + gamma**2 * 4 / 3, 1 + b**2])


@pytest.mark.parametrize("lam", [1.0, 0.0])
def test_a_known_value_is_recovered(lam: float) -> None:
    torch.manual_seed(0)
    gamma, critic = 0.9, ChunkCritic(2, (2, 1), [64, 64], members=2)
    critic.scale.set(torch.tensor([1.0]), torch.tensor([0.5]))
    seen, _ = two_chunk_episodes(2000, gamma, seed=0)
    optimiser, generator = torch.optim.Adam(critic.parameters(), lr=3e-3), torch.Generator().manual_seed(0)
    for _ in range(4):
        target = targets(critic, seen, gamma, lam).flatten()
        for _ in range(150):
            rows = torch.randint(len(target), (256,), generator=generator)
            loss = critic_loss(
                critic, Cond(seen.cond.flatten(0, 1)[rows]), seen.action.flatten(0, 1)[rows], target[rows]
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    unseen, truth = two_chunk_episodes(500, gamma, seed=1)
    with torch.no_grad():
        found = values(critic, unseen.cond, unseen.action)
    assert explained_variance(found.flatten(), truth.flatten()) > 0.95
    assert float((found - truth).abs().mean()) < 0.08


def test_parts_follow_one_another() -> None:
    one, two = experience([1, 2], [2, 2], "--"), experience([4], [2], "t")
    whole = Experience.joined([one, replace(two)])
    found = returns(column(0, 0, 0), column(7, 7, 7), whole, 1.0, 1.0)
    assert found.flatten().tolist() == [7, 6, 4]


def test_what_measures_a_critic() -> None:
    truth = torch.tensor([0.0, 1.0, 1.0, 3.0])
    assert ranking_accuracy(truth * 2 + 5, truth) == 1.0
    assert ranking_accuracy(-truth, truth) == 0.0
    assert ranking_accuracy(torch.zeros(4), truth) == 0.5
    # Of five pairs with different targets, one is inverted.
    assert ranking_accuracy(torch.tensor([0.0, 4.0, 1.0, 3.0]), truth) == pytest.approx(4 / 5)
    assert explained_variance(truth + 2, truth) == 1.0
    assert explained_variance(torch.full((4,), 9.0), truth) == 0.0
