"""Scripted experts: they solve their tasks, each time differently."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from robo_rlft import envs
from robo_rlft.envs import experts
from robo_rlft.envs.mujoco.tasks.arm.experts import make_expert
from robo_rlft.errors import ConfigError


def success_rate(env_id: str, episodes: int) -> float:
    env = envs.make(env_id, episodes, seed=0)
    expert = experts.make(env, seed=7)
    obs, _ = env.reset(seed=2000)
    expert.reset()
    done, won = torch.zeros(episodes, dtype=torch.bool), torch.zeros(episodes, dtype=torch.bool)
    for _ in range(env.robot.max_episode_steps):
        obs, reward, terminated, truncated, info = env.step(expert.act(obs))
        assert torch.equal(reward, info["success"].float())
        won |= info["success"] & ~done
        ended = terminated | truncated
        done |= ended
        expert.reset(np.flatnonzero(ended.numpy()).tolist())
        if done.all():
            break
    return won.float().mean().item()


def test_peg_expert_succeeds() -> None:
    assert success_rate("ArmPegInsert", 100) >= 0.95


def test_cube_expert_succeeds() -> None:
    assert success_rate("ArmPickPlace", 48) >= 0.90


@pytest.mark.parametrize("env_id", ["ArmPegInsert", "ArmPickPlace"])
def test_demonstrations_vary_and_repeat_with_their_seed(env_id: str) -> None:
    def actions(seed: int) -> torch.Tensor:
        env = envs.make(env_id, 2, seed=0)
        expert = experts.make(env, seed=seed)
        obs, _ = env.reset(seed=0)
        taken = []
        for _ in range(15):
            taken.append(expert.act(obs))
            obs, *_ = env.step(taken[-1])
        return torch.stack(taken)

    first = actions(1)
    assert torch.equal(first, actions(1))
    assert (first - actions(2)).abs().mean() > 0.05
    assert first.abs().max() <= 1.0


def test_reset_of_some_leaves_the_others_styles() -> None:
    env = envs.make("ArmPegInsert", 3, seed=0)
    expert = make_expert("ArmPegInsert", env, 0)
    before = expert._style["speed"].copy()
    expert.reset([1])
    changed = expert._style["speed"] != before
    np.testing.assert_array_equal(changed, [False, True, False])


def test_environments_without_an_expert_say_so() -> None:
    with pytest.raises(ConfigError, match=r"Hopper has no scripted expert.*ArmPegInsert"):
        experts.make(envs.make("Hopper", 1), seed=0)
    with pytest.raises(ConfigError, match="unknown arm task 'ArmPeg'"):
        make_expert("ArmPeg", envs.make("ArmPegInsert", 1), 0)
