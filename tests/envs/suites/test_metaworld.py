"""Meta-World; run where `make setup-metaworld` has been."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from robo_rlft import envs
from robo_rlft.envs.images import ImagesConfig
from robo_rlft.errors import ConfigError
from tests.envs.suites.follows import follow_all, share_of_expert

pytest.importorskip("metaworld", reason="make setup-metaworld")


@pytest.mark.slow
def test_follows() -> None:
    follow_all("metaworld:drawer-open-v3", max_episode_steps=60)


@pytest.mark.slow
def test_a_set_follows() -> None:
    follow_all("metaworld:MT10", max_episode_steps=60)


def test_every_task_has_words_and_an_expert() -> None:
    from metaworld.policies import ENV_POLICY_MAP

    from robo_rlft.envs.suites.meta_world import tasks
    from robo_rlft.envs.suites.meta_world_words import INSTRUCTIONS

    alone = set(tasks()) - {"MT10", "MT50"}
    assert len(alone) == 50
    assert set(INSTRUCTIONS) == alone == set(ENV_POLICY_MAP)
    assert len(set(INSTRUCTIONS.values())) == 50


def test_equals_metaworld_itself() -> None:
    """A goal drawn from the task's range by the seed; observation and reward to the last bit."""
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    theirs = ALL_V3_ENVIRONMENTS["push-v3"]()
    theirs._partially_observable, theirs._set_task_called = False, True
    theirs._freeze_rand_vec, theirs.seeded_rand_vec = False, True
    del theirs.sawyer_observation_space
    theirs.seed(4)
    seen, _ = theirs.reset()
    ours = envs.make("metaworld:push-v3", 1, workers=0, dtype=torch.float64)
    obs, _ = ours.reset(seed=4)
    rng = np.random.default_rng(0)
    for _ in range(30):
        np.testing.assert_array_equal(obs["policy"][0].numpy(), seen.astype(np.float32))
        action = rng.uniform(-1, 1, 4).astype(np.float32)
        seen, reward, *_ = theirs.step(action)
        obs, our_reward, *_ = ours.step(torch.from_numpy(action)[None])
        assert float(our_reward) == reward


def test_the_task_is_told_one_hot_and_in_words() -> None:
    env = envs.make("metaworld:MT10", 3, workers=0)
    assert env.variants[:3] == ("reach-v3", "push-v3", "pick-place-v3")
    env.set_variants([0, 2, 9])
    obs, _ = env.reset(seed=0)
    assert obs["policy"][:, 39:].argmax(1).tolist() == [0, 2, 9]
    assert obs["policy"][:, 39:].sum(1).tolist() == [1.0, 1.0, 1.0]
    assert env.instructions[0] == "reach the target"
    assert len(set(env.instructions)) == 3
    assert len(envs.make("metaworld:MT50", 1, workers=0).variants) == 50


@pytest.mark.slow
def test_experts_solve_their_tasks() -> None:
    env = envs.make("metaworld:MT10", 20, workers=0)
    assert share_of_expert(env, 20, [i % 10 for i in range(20)]) >= 0.9


def test_cameras_that_hang_upside_down_are_turned() -> None:
    """Those whose upper edge points down, and they alone; both ways of drawing turn them."""
    from robo_rlft.envs.suites.meta_world import MetaWorldTask

    env = MetaWorldTask("reach-v3", "x", ImagesConfig(["corner", "topview"], [32, 32]))
    env.reset(0, 0)
    model, data = env.physics
    downwards = {model.camera(i).name for i in range(model.ncam) if data.cam_xmat[i].reshape(3, 3)[2, 1] < -0.1}
    assert downwards == set(env.hung)
    drawn = env.render("corner", (32, 32))
    env._pictures._hung = frozenset()
    np.testing.assert_array_equal(env.render("corner", (32, 32))[::-1, ::-1], drawn)


@pytest.mark.parametrize(
    ("task", "params", "says"),
    [("reach-v9", {}, "did you mean reach-v3"), ("reach-v3", {"max_episode_steps": 501}, "Meta-World allows 1 to 500")],
)
def test_errors_say_what_to_do(task: str, params: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        envs.make(f"metaworld:{task}", 1, workers=0, **params)
