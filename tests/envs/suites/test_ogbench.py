"""OGBench's manipulation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from robo_rlft import envs
from robo_rlft.errors import ConfigError
from tests.envs.suites.follows import follow_some, share_of_expert, with_egl

pytest.importorskip("ogbench", reason="extra ogbench")


@pytest.mark.slow
def test_follows() -> None:
    follow_some("ogbench:cube-single-v0", max_episode_steps=30)


def test_goals_are_variants_and_part_of_the_observation() -> None:
    env = envs.make("ogbench:cube-single-v0", 2, workers=0)
    assert env.variants[0] == "task1_horizontal"
    assert len(env.variants) == 5
    names = env.robot.observation["policy"].names
    assert len(names) == 2 * 28
    assert names[28:] == tuple(f"goal_{name}" for name in names[:28])
    env.set_variants([0, 3])
    obs, _ = env.reset(seed=0)
    goal = obs["policy"][:, 28 + 19 : 28 + 21]  # where the cube is to be, in OGBench's units
    expected = torch.tensor([[0.0, -1.0], [0.75, 2.0]])
    torch.testing.assert_close(goal, expected, atol=0.05, rtol=0)
    assert env.instructions == ["horizontal", "diagonal1"]


def test_one_task_alone_has_no_goal() -> None:
    env = envs.make("ogbench:puzzle-3x3-singletask-task2-v0", 1, workers=0)
    assert env.variants == ("",)
    assert env.robot.observation["policy"].shape == (19 + 9 * 4,)


def test_resets_follow_the_seed() -> None:
    """OGBench steps with unseeded actions in its resets; what they leave behind must not differ."""
    env = envs.make("ogbench:scene-v0", 2, workers=0)
    env.reset(seed=[5, 5])
    rng = np.random.default_rng(0)
    for _ in range(5):
        action = torch.from_numpy(rng.uniform(-1, 1, (1, 5))).repeat(2, 1)
        obs, *_ = env.step(action)
    assert torch.equal(obs["policy"][0], obs["policy"][1])


@pytest.mark.slow
@pytest.mark.parametrize("task", ["cube-single-v0", "puzzle-3x3-v0", "scene-v0"])
def test_oracles_reach_every_goal(task: str) -> None:
    env = envs.make(f"ogbench:{task}", 5, workers=0)
    assert share_of_expert(env, 5, range(5)) == 1.0


def test_the_fewest_presses() -> None:
    from robo_rlft.envs.suites.ogbench_expert import _turn, presses

    rng = np.random.default_rng(0)
    for shape in ((3, 3), (4, 5)):
        goal, lights = np.zeros(shape, int), np.zeros(shape, int)
        pressed = rng.integers(0, 2, shape)
        for row, column in np.argwhere(pressed):
            _turn(lights, int(row), int(column))
        found = presses(lights, goal).reshape(shape)
        assert found.sum() <= pressed.sum()
        for row, column in np.argwhere(found):
            _turn(lights, int(row), int(column))
        assert not lights.any()
    np.testing.assert_array_equal(presses(np.array([[1, 1, 0]]), np.zeros((1, 3), int)), [1, 0, 0])


PICTURES = """
import gymnasium, numpy as np
from robo_rlft.envs.suites.ogbench_tasks import OgbenchEnv, _sampled_by_seed
ours = OgbenchEnv("visual-cube-single-singletask-v0", "x")
ours.reset(3, 0)
theirs = gymnasium.make("visual-cube-single-singletask-v0").unwrapped
_sampled_by_seed(theirs).seed(3)
np.testing.assert_array_equal(ours.observe()["image/front_pixels"], theirs.reset(seed=3)[0])
"""


@pytest.mark.slow
def test_pictures_are_ogbenchs_own() -> None:
    with_egl(PICTURES)


@pytest.mark.parametrize(
    ("task", "says"),
    [("cube-singel-v0", "did you mean"), ("visual-cube-single-v0", "visual-cube-single-singletask-v0")],
)
def test_errors_say_what_to_do(task: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        envs.make(f"ogbench:{task}", 1, workers=0)
