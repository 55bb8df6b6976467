"""Grasp, plinth and success of pick and place."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from robo_rlft import envs
from robo_rlft.envs import experts
from robo_rlft.envs.mujoco.task import State
from robo_rlft.envs.mujoco.tasks.arm import pick_place
from robo_rlft.errors import ConfigError


def column(env: envs.BatchEnv, name: str) -> int:
    return env.robot.observation["policy"].names.index(name)


def test_the_grasp_holds_by_friction_while_the_hand_is_shaken() -> None:
    env = envs.make("ArmPickPlace", 8, seed=0)
    obs, _ = env.reset(seed=0)
    expert = experts.make(env, seed=0)
    z, opening = column(env, "cube_z"), column(env, "finger_opening")
    lifted = torch.zeros(8, dtype=torch.bool)
    for _ in range(80):
        action = expert.act(obs)
        lifted |= (obs["policy"][:, z] > 0.08) & (obs["policy"][:, opening] < 0.023)
        action[lifted] = 0.0
        action[lifted, 6] = -1.0
        obs, *_ = env.step(action)
    assert lifted.sum() >= 6
    noise = torch.Generator().manual_seed(0)
    for _ in range(40):
        action = 0.5 * torch.randn(8, 7, generator=noise).clip(-1, 1)
        action[:, 2], action[:, 6] = action[:, 2].abs(), -1.0
        obs, *_ = env.step(action)
    offset = (obs["policy"][:, z] - obs["policy"][:, column(env, "tool_z")])[lifted]
    assert (obs["policy"][lifted, z] > 0.09).all()
    assert offset.abs().max() < 0.02


def test_the_cube_rests_on_the_table() -> None:
    env = envs.make("ArmPickPlace", 8, seed=0)
    obs, _ = env.reset(seed=0)
    start = obs["policy"][:, column(env, "cube_x") : column(env, "cube_x") + 3].clone()
    open_hand = torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]]).repeat(8, 1)
    for _ in range(60):
        obs, *_ = env.step(open_hand)
    moved = obs["policy"][:, column(env, "cube_x") : column(env, "cube_x") + 3] - start
    assert moved.abs().max() < 1e-3


def test_success_needs_place_height_rest_and_release() -> None:
    goal = np.array([[0.5, 0.1]])
    resting = pick_place.PLINTH_HEIGHT + pick_place.CUBE_HALF

    def placed(dx: float = 0.0, dz: float = 0.0, speed: float = 0.0, opening: float = 0.04) -> bool:
        qpos, qvel = np.zeros((1, 16)), np.zeros((1, 15))
        qpos[0, 9:12] = 0.5 + dx, 0.1, resting + dz
        qpos[0, 12] = 1.0
        qvel[0, 9] = speed
        length = np.array([[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, opening]])
        state = State({"qpos": qpos, "qvel": qvel, "actuator_length": length}, {}, {"goal": goal})
        return bool(pick_place.placed(np, state, pick_place.TASK.params)[0])

    assert placed()
    assert not placed(dx=0.03)
    assert not placed(dz=0.01)
    assert not placed(speed=0.1)
    assert not placed(opening=0.02)


def test_cube_turn_is_the_same_for_its_four_ways_round() -> None:
    turns = []
    for quarter in range(4):
        half = (0.3 + quarter * np.pi / 2) / 2
        qpos = np.zeros((1, 16))
        qpos[0, 12], qpos[0, 15] = np.cos(half), np.sin(half)
        turns.append(pick_place.cube_turn(np, State({"qpos": qpos}, {}, {}), {})[0])
    np.testing.assert_allclose(turns, np.tile([np.cos(1.2), np.sin(1.2)], (4, 1)), atol=1e-12)


def test_finite_for_1000_random_steps() -> None:
    env = envs.make("ArmPickPlace", 2, seed=0)
    env.reset(seed=0)
    noise = torch.Generator().manual_seed(0)
    for _ in range(1000):
        obs, *_ = env.step(torch.rand(2, 7, generator=noise) * 2 - 1)
        assert torch.isfinite(obs["policy"]).all()
    assert env.nan_resets == 0


def test_wrong_range_is_explained() -> None:
    with pytest.raises(ConfigError, match=r"place_range is 0\.3"):
        envs.make("ArmPickPlace", 1, place_range=0.3)
