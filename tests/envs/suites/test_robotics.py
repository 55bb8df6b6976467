"""gymnasium-robotics on present MuJoCo."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from robo_rlft import envs
from tests.envs.suites.follows import follow_all

pytest.importorskip("gymnasium_robotics", reason="extra gymnasium-robotics")


@pytest.mark.slow
@pytest.mark.parametrize("task", ["FetchPickAndPlace-v4", "FetchReach-v4"])
def test_fetch_follows(task: str) -> None:
    follow_all(f"gymnasium:{task}")


def test_goals_are_observed_and_success_is_told() -> None:
    env = envs.make("gymnasium:FetchReach-v4", 1, workers=0)
    names = env.robot.observation["policy"].names
    goal = [i for i, name in enumerate(names) if name.startswith("desired_goal")]
    here = [i for i, name in enumerate(names) if name.startswith("achieved_goal")]
    obs, _ = env.reset(seed=0)
    for _ in range(30):
        move = 10 * (obs["policy"][:, goal] - obs["policy"][:, here])
        obs, reward, _, _, info = env.step(torch.cat([move, torch.zeros(1, 1)], 1))
        assert bool(info["success"]) >= (float(reward) == 0.0)
    assert bool(info["success"])


@pytest.mark.slow
def test_kitchen_state_comes_back() -> None:
    env = envs.make("gymnasium:FrankaKitchen-v1", 1, workers=0, tasks_to_complete=["microwave", "kettle"])
    assert (env.fidelity, env.has_success) == ("exact", True)
    env.reset(seed=1)
    actions = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (20, 1, 9)))
    for action in actions[:5]:
        env.step(action)
    saved = env.get_state()
    first = [env.step(action)[0]["policy"] for action in actions]  # with the noise that sensors draw
    env.set_state(saved)
    for expected, action in zip(first, actions, strict=True):
        assert torch.equal(env.step(action)[0]["policy"], expected)


def test_kitchen_is_done_when_all_its_tasks_are() -> None:
    from robo_rlft.envs.suites.any_gymnasium import GymnasiumEnv

    env = GymnasiumEnv("FrankaKitchen-v1", "x", tasks_to_complete=["microwave", "kettle"])
    env.reset(0, 0)
    assert not env.step(np.zeros(9)).success
    base = env.env.unwrapped
    base.data.qpos[22] = -0.75  # pyright: ignore[reportAttributeAccessIssue] - the door of the microwave
    assert not env.step(np.zeros(9)).success
    base.data.qpos[23:30] = [-0.23, 0.75, 1.62, 0.99, 0.0, 0.0, -0.06]  # pyright: ignore[reportAttributeAccessIssue]
    outcome = env.step(np.zeros(9))
    assert outcome.success
    assert outcome.terminated


def test_markers_of_goals_are_drawn_where_the_goal_is() -> None:
    """They are moved in the model by the environment's own renderer, and a picture changes nothing that follows."""
    env = envs.make("gymnasium:FetchReach-v4", 2, workers=0)
    env.reset(seed=[0, 0])
    for _ in range(3):
        env.step(torch.ones(2, 4))
    first, second = env.render(size=(64, 64))
    assert (first == second).all()
    env.render([0])
    obs, *_ = env.step(torch.ones(2, 4))
    assert torch.equal(obs["policy"][0], obs["policy"][1])
