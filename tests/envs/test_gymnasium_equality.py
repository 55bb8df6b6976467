"""The locomotion tasks give Gymnasium's v5 numbers: observation, reward, terminated, truncated and resets."""

from __future__ import annotations

import warnings

import gymnasium
import numpy as np
import pytest
import torch

from robo_rlft import envs

TASKS = ("Hopper", "Walker2d", "HalfCheetah", "Ant", "Humanoid")


def episodes_of(env_id: str, seeds: range, steps: int, dtype: type) -> dict[str, np.ndarray]:
    """Gymnasium's own numbers for uniformly random actions, [step, env, ...], restarting episodes that ended."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peers = [gymnasium.make(f"{env_id}-v5") for _ in seeds]
    space = peers[0].action_space
    rng = np.random.default_rng(7)
    out: dict[str, list] = {k: [] for k in ("action", "obs", "final", "reward", "terminated", "truncated")}
    out["first"] = [np.stack([peer.reset(seed=seed)[0] for peer, seed in zip(peers, seeds, strict=True)])]
    for _ in range(steps):
        action = rng.uniform(space.low, space.high, (len(seeds), *space.shape)).astype(dtype)
        rows = [peer.step(a) for peer, a in zip(peers, action, strict=True)]
        final, reward, terminated, truncated = (np.stack([row[k] for row in rows]) for k in range(4))
        obs = final.copy()
        for i in np.flatnonzero(terminated | truncated):
            obs[i] = peers[i].reset()[0]
        for name, value in zip(out, (action, obs, final, reward, terminated, truncated), strict=False):
            out[name].append(value)
    return {name: np.stack(values) for name, values in out.items()}


@pytest.mark.usefixtures("stepper")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("env_id", TASKS)
def test_equal_to_gymnasium(env_id: str, dtype: type) -> None:
    steps, seeds = 120, range(5, 8)
    wanted = episodes_of(env_id, seeds, steps, dtype)
    env = envs.make(env_id, len(seeds), dtype=torch.float64, threads=2)
    obs, _ = env.reset(seed=seeds[0])
    np.testing.assert_array_equal(obs["policy"], wanted["first"][0])
    for t in range(steps):
        obs, reward, terminated, truncated, info = env.step(torch.from_numpy(wanted["action"][t]))
        np.testing.assert_array_equal(info["final_obs"]["policy"], wanted["final"][t], f"final obs, step {t}")
        np.testing.assert_array_equal(obs["policy"], wanted["obs"][t], f"obs, step {t}")
        np.testing.assert_array_equal(reward, wanted["reward"][t], f"reward, step {t}")
        np.testing.assert_array_equal(terminated, wanted["terminated"][t])
        np.testing.assert_array_equal(truncated, wanted["truncated"][t])
    assert wanted["terminated"].any() or env_id in ("HalfCheetah", "Ant")


@pytest.mark.slow
@pytest.mark.parametrize("env_id", ["HalfCheetah", "Ant"])
def test_equal_through_truncation(env_id: str) -> None:
    """A thousand steps, to the time limit and beyond, or as far as the ant's health goes."""
    wanted = episodes_of(env_id, range(1), 1010, np.float64)
    env = envs.make(env_id, 1, dtype=torch.float64, threads=1)
    env.reset(seed=0)
    for t in range(1010):
        obs, reward, terminated, truncated, _ = env.step(torch.from_numpy(wanted["action"][t]))
        np.testing.assert_array_equal(obs["policy"], wanted["obs"][t])
        np.testing.assert_array_equal(reward, wanted["reward"][t])
        np.testing.assert_array_equal(terminated | truncated, wanted["terminated"][t] | wanted["truncated"][t])
    assert wanted["truncated"].any() or wanted["terminated"].any()


@pytest.mark.parametrize("env_id", TASKS)
def test_spaces_match(env_id: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = gymnasium.make(f"{env_id}-v5")
    env = envs.make(env_id, 2)
    assert env.single_observation_space["policy"].shape == peer.observation_space.shape
    np.testing.assert_array_equal(env.single_action_space.low, peer.action_space.low)
    np.testing.assert_array_equal(env.single_action_space.high, peer.action_space.high)
    assert env.robot.max_episode_steps == peer.spec.max_episode_steps
    assert env.robot.rate_hz == pytest.approx(1 / peer.unwrapped.dt)
