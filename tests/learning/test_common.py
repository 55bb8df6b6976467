"""Averages, running statistics, reward scale and schedules against their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from robo_rlft.learning.common.ema import EMA
from robo_rlft.learning.common.reward_scale import RewardScale
from robo_rlft.learning.common.running import RunningStats
from robo_rlft.learning.common.schedule import cosine, set_lr


def module(value: float) -> nn.BatchNorm1d:
    made = nn.BatchNorm1d(2)
    with torch.no_grad():
        made.weight.fill_(value)
        assert made.running_mean is not None
        made.running_mean.fill_(value)
    return made


def test_ema_follows_its_recursion() -> None:
    source = module(0.0)
    ema = EMA(source, 0.9)
    expected, generator = 0.0, np.random.default_rng(0)
    for n in range(1, 120):
        target = float(generator.normal())
        with torch.no_grad():
            source.weight.fill_(target)
        ema.update(source)
        decay = min(0.9, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * target
        assert float(ema.average.weight[0]) == pytest.approx(expected, abs=1e-5)


def test_ema_copies_buffers_and_is_not_trained() -> None:
    source = module(0.0)
    ema = EMA(source, 0.99)
    assert source.running_mean is not None
    source.running_mean.fill_(5.0)
    ema.update(source)
    assert ema.average.running_mean is not None
    assert ema.average.running_mean.tolist() == [5, 5]
    assert not any(p.requires_grad for p in ema.average.parameters())
    assert all(p.requires_grad for p in source.parameters())


def test_ema_without_decay_is_the_present() -> None:
    source = module(1.0)
    ema = EMA(source, 0.0)
    with torch.no_grad():
        source.weight.fill_(7.0)
    ema.update(source)
    assert ema.average.weight.tolist() == [7, 7]


def test_running_statistics_equal_those_of_all_rows() -> None:
    rows = torch.randn(100, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 50.0, 0.01]) + 1000
    stats = RunningStats()
    for part in rows.split([1, 40, 9, 50]):
        stats.update("policy", part)
    mean, std = stats.mean_std("policy")
    np.testing.assert_allclose(mean, rows.double().mean(0), rtol=1e-12)
    np.testing.assert_allclose(std, rows.double().std(0, unbiased=False), rtol=1e-9)
    other = RunningStats()
    other.load_state_dict(stats.state_dict())
    other.update("policy", rows[:10])
    assert other.count["policy"] == 110
    assert stats.count["policy"] == 100


def test_reward_scale_is_the_deviation_of_the_discounted_return() -> None:
    generator = torch.Generator().manual_seed(0)
    scale, gamma, returns, seen = RewardScale(3, 0.9), 0.9, [0.0, 0.0, 0.0], []
    for _ in range(50):
        reward = torch.randn(3, generator=generator)
        length = torch.randint(1, 5, (3,), generator=generator)
        done = torch.rand(3, generator=generator) < 0.2
        scale.update(reward, length, done)
        for i in range(3):
            returns[i] = returns[i] * gamma ** int(length[i]) + float(reward[i])
            seen.append(returns[i])
            if done[i]:
                returns[i] = 0.0
    assert scale.divisor == pytest.approx(float(np.std(seen)), rel=1e-9)
    other = RewardScale(3, 0.9)
    other.load_state_dict(scale.state_dict())
    assert other.divisor == scale.divisor
    assert torch.equal(other.running, scale.running)


def test_reward_scale_never_blows_rewards_up() -> None:
    scale = RewardScale(2, 0.9)
    assert scale.divisor == 1.0
    for _ in range(5):
        scale.update(torch.zeros(2), torch.ones(2, dtype=torch.long), torch.zeros(2, dtype=torch.bool))
    assert scale.divisor == 1e-3


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [(0.0, 0.01), (0.05, 0.5), (0.1, 1.0), (0.55, 0.6), (1.0, 0.2), (1.5, 0.2), (0.325, 0.6 + 0.4 * math.sqrt(0.5))],
)
def test_cosine_with_warm_up(fraction: float, expected: float) -> None:
    assert cosine(fraction, 1.0, 0.2, warmup=0.1) == pytest.approx(expected)


def test_set_lr() -> None:
    optimiser = torch.optim.SGD(
        [{"params": [nn.Parameter(torch.zeros(1))]}, {"params": [nn.Parameter(torch.zeros(1))]}], 1
    )
    set_lr(optimiser, 0.125)
    assert [g["lr"] for g in optimiser.param_groups] == [0.125, 0.125]
