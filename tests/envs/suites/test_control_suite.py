"""The DeepMind Control Suite."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch

from robo_rlft import envs
from robo_rlft.envs.images import ImagesConfig
from robo_rlft.errors import ConfigError
from tests.envs.suites.follows import follow_all

pytest.importorskip("dm_control", reason="extra dm-control")


@pytest.mark.slow
@pytest.mark.parametrize("task", ["cheetah-run", "finger-turn_hard"])
def test_follows(task: str) -> None:
    follow_all(f"dm_control:{task}", time_limit=1.0)


def test_equals_the_suite_itself() -> None:
    from dm_control import suite

    theirs = suite.load("walker", "walk", task_kwargs={"random": 7})
    ours = envs.make("dm_control:walker-walk", 1, workers=0, dtype=torch.float64)
    seen = theirs.reset()
    obs, _ = ours.reset(seed=7)
    rng = np.random.default_rng(0)
    for _ in range(50):
        flat = np.concatenate([np.ravel(v) for v in seen.observation.values()])
        np.testing.assert_array_equal(obs["policy"][0].numpy(), flat.astype(np.float32))
        action = rng.uniform(-1, 1, 6)
        seen = theirs.step(action)
        obs, reward, *_ = ours.step(torch.from_numpy(action)[None])
        assert float(reward) == seen.reward


def test_names_units_and_limits() -> None:
    env = envs.make("dm_control:cartpole-balance", 1, workers=0)
    assert env.robot.observation["policy"].names == (
        "position[0]",
        "position[1]",
        "position[2]",
        "velocity[0]",
        "velocity[1]",
    )
    assert (env.robot.rate_hz, env.robot.max_episode_steps) == (100.0, 1000)
    assert (env.robot.action.names, env.robot.action.low) == (("slide",), (-1.0,))


def test_a_time_limit_truncates_and_convergence_terminates() -> None:
    timed = envs.make("dm_control:cheetah-run", 1, workers=0, time_limit=0.05)
    timed.reset(seed=0)
    result = timed.step_chunk(torch.zeros(1, 9, 6))
    assert result.length.tolist() == [5]
    assert (result.truncated.tolist(), result.terminated.tolist()) == ([True], [False])
    from robo_rlft.envs.suites.control_suite import ControlSuiteEnv

    regulator = ControlSuiteEnv("lqr-lqr_2_1", "x", time_limit=100.0)
    regulator.reset(0, 0)
    assert not regulator.step(np.zeros(1)).terminated
    regulator.physics[1].qpos[:], regulator.physics[1].qvel[:] = 0.0, 0.0  # it is at rest: solved
    mujoco.mj_step1(*regulator.physics)
    outcome = regulator.step(np.zeros(1))
    assert (outcome.terminated, outcome.truncated) == (True, False)


def test_the_ground_is_part_of_the_state() -> None:
    """quadruped-escape makes new ground for every episode."""
    env = envs.make("dm_control:quadruped-escape", 2, workers=0, time_limit=2.0)
    env.reset(seed=3)
    env.fork(0, [1])
    rng = np.random.default_rng(0)
    for _ in range(20):
        action = torch.from_numpy(rng.uniform(-1, 1, (1, 12))).repeat(2, 1)
        obs, reward, *_ = env.step(action)
        assert torch.equal(obs["policy"][0], obs["policy"][1])
        assert reward[0] == reward[1]


def test_images_change_nothing() -> None:
    blind = envs.make("dm_control:reacher-easy", 1, workers=0)
    seeing = envs.make("dm_control:reacher-easy", 1, workers=0, images=ImagesConfig(["fixed"], [32, 32]))
    blind.reset(seed=0)
    seeing.reset(seed=0)
    for _ in range(5):
        one, *_ = blind.step(torch.ones(1, 2))
        two, *_ = seeing.step(torch.ones(1, 2))
    assert torch.equal(one["policy"], two["policy"])
    assert two["image/fixed"].float().std() > 5


@pytest.mark.parametrize(
    ("task", "params", "says"),
    [
        ("cheetah-walk", {}, "unknown task"),
        ("lqr-lqr_2_1", {}, "time_limit"),
        ("cheetah-run", {"gain": 2}, "does not take"),
    ],
)
def test_errors_say_what_to_do(task: str, params: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        envs.make(f"dm_control:{task}", 1, workers=0, **params)
