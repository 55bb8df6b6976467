"""Any environment of Gymnasium's registry as a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from robo_rlft import envs
from robo_rlft.envs import conformance
from robo_rlft.envs.images import ImagesConfig
from robo_rlft.envs.pool.env import PoolEnv
from robo_rlft.envs.suites.spaces import Actions, Observations
from robo_rlft.errors import ConfigError


@pytest.mark.parametrize("rule", conformance.RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("env_id", ["gymnasium:Pendulum-v1", "gymnasium:CartPole-v1", "gymnasium:Reacher-v5"])
def test_follows(env_id: str, rule: conformance.Rule) -> None:
    conformance.follow(rule, lambda num_envs: envs.make(env_id, num_envs, workers=0))


@pytest.mark.parametrize("task", ["Pendulum-v1", "Hopper-v5", "MountainCarContinuous-v0"])
@pytest.mark.parametrize("workers", [0, 2])
def test_equals_gymnasiums_vector_environment(task: str, workers: int) -> None:
    """Rewards to the last bit, observations to the last bit of float32, ends at the same steps."""
    makers = [lambda: gymnasium.make(task, max_episode_steps=30)] * 3
    theirs = SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)
    ours = envs.make(f"gymnasium:{task}", 3, dtype=torch.float64, max_episode_steps=30, workers=workers)
    seen, _ = theirs.reset(seed=5)
    obs, _ = ours.reset(seed=5)
    rng, over = np.random.default_rng(0), np.zeros(3, bool)
    for _ in range(30):
        np.testing.assert_array_equal(obs["policy"].numpy()[~over], seen.astype(np.float32)[~over])
        low, high = (np.array(v, np.float32) for v in (ours.robot.action.low, ours.robot.action.high))
        action = rng.uniform(low, high, (3, len(low))).astype(np.float32)
        seen, reward, terminated, truncated, theirs_info = theirs.step(action)
        obs, our_reward, our_terminated, our_truncated, info = ours.step(torch.from_numpy(action))
        np.testing.assert_array_equal(our_reward.numpy()[~over], reward[~over])
        np.testing.assert_array_equal(our_terminated.numpy()[~over], terminated[~over])
        np.testing.assert_array_equal(our_truncated.numpy()[~over], (truncated & ~terminated)[~over])
        last = np.array(seen)
        for i in np.flatnonzero(terminated | truncated):
            last[i] = theirs_info["final_obs"][i]
        final = info["final_obs"]["policy"].numpy()
        np.testing.assert_array_equal(final[~over], last.astype(np.float32)[~over])
        over |= terminated | truncated
    assert over.all()
    ours.close()


class Goals(gymnasium.Env):
    """Dict and tuple observations with a picture, actions of an unusual shape, success now and then."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012
    observation_space = spaces.Dict(
        {
            "camera": spaces.Box(0, 255, (4, 6, 3), np.uint8),
            "joints": spaces.Tuple((spaces.Box(-1, 1, (2,)), spaces.Discrete(3))),
            "desired_goal": spaces.Box(-1, 1, (1,)),
        }
    )
    action_space = spaces.Box(-2, 2, (2, 2))

    def __init__(self, gain: float = 1.0, render_mode: str | None = None) -> None:
        self.gain, self.render_mode, self.count = gain, render_mode, 0

    def seen(self) -> dict[str, Any]:
        camera = np.full((4, 6, 3), self.count, np.uint8)
        return {"camera": camera, "joints": (self.place, self.count % 3), "desired_goal": np.ones(1, np.float32)}

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        super().reset(seed=seed)
        self.count, self.place = 0, self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return self.seen(), {}

    def step(self, action: np.ndarray) -> tuple:
        self.count += 1
        self.place = np.tanh(self.place + self.gain * np.asarray(action).sum(0)).astype(np.float32)
        return self.seen(), 1.0, False, False, {"is_success": self.count == 4}

    def render(self) -> Any:
        return np.full((8, 8, 3), self.count, np.uint8)


gymnasium.register("Goals-v0", Goals, max_episode_steps=6)


def goals(**params: Any) -> PoolEnv:
    env = envs.make("gymnasium:Goals-v0", 2, workers=0, **params)
    assert isinstance(env, PoolEnv)
    return env


def test_parts_go_by_their_names() -> None:
    env = goals()
    spec = env.robot.observation
    assert set(spec) == {"policy", "image/camera"}
    joints = ("joints/0[0]", "joints/0[1]", "joints/1[0]", "joints/1[1]", "joints/1[2]")
    assert sorted(spec["policy"].names) == sorted((*joints, "desired_goal[0]"))
    assert env.robot.action.shape == (4,)
    obs, _ = env.reset(seed=0)
    obs, *_ = env.step(torch.zeros(2, 4))
    column = {name: i for i, name in enumerate(spec["policy"].names)}
    assert obs["policy"][:, column["joints/1[1]"]].tolist() == [1.0, 1.0], "a Discrete observation is one-hot"
    assert obs["image/camera"].unique().tolist() == [1]


def test_success_and_the_time_limit() -> None:
    env = goals()
    env.reset(seed=0)
    assert env.has_success
    result = env.step_chunk(torch.zeros(2, 8, 4))
    assert result.length.tolist() == [6, 6]
    assert result.truncated.all()
    assert not result.terminated.any()
    assert result.success.all()


def test_parameters_reach_the_environment() -> None:
    action = torch.full((2, 4), 0.25)
    ends = []
    for gain in (0.5, 1.0):
        env = goals(gain=gain)
        env.reset(seed=0)
        ends.append(env.step(action)[0]["policy"])
    assert not torch.equal(*ends)
    with pytest.raises(ConfigError, match="gian"):
        goals(gian=1)


def test_what_an_environment_draws_is_observed_and_rendered() -> None:
    env = goals(images=ImagesConfig(["render"], [4, 4]))
    obs, _ = env.reset(seed=0)
    obs, *_ = env.step(torch.zeros(2, 4))
    assert obs["image/render"].shape == (2, 4, 4, 3)
    assert obs["image/render"].unique().tolist() == [1]
    assert env.render([1], None, (16, 8)).shape == (1, 16, 8, 3)


def test_the_rate_is_that_of_the_control_and_not_of_videos() -> None:
    assert envs.make("gymnasium:Pendulum-v1", workers=0).robot.rate_hz == pytest.approx(20.0)
    assert envs.make("gymnasium:Goals-v0", workers=0).robot.rate_hz == 10.0
    assert envs.make("gymnasium:Goals-v0", workers=0, rate_hz=50).robot.rate_hz == 50.0


def test_discrete_actions_are_preferences() -> None:
    actions = Actions(spaces.Discrete(3, start=5), None, "x")
    assert actions.spec.shape == (3,)
    assert actions.action(np.array([-1.0, 0.2, 0.1])) == 6


def test_actions_without_bounds_need_one() -> None:
    space = spaces.Box(-np.inf, np.array([1.0, np.inf], np.float32))
    with pytest.raises(ConfigError, match="action_bound"):
        Actions(space, None, "x")
    spec = Actions(space, 3.0, "x").spec
    assert (spec.low, spec.high) == ((-3.0, -3.0), (1.0, 3.0))


@pytest.mark.parametrize("space", [spaces.MultiBinary(2), spaces.Dict({"a": spaces.Box(-1, 1)}), spaces.Text(3)])
def test_refuses_other_actions(space: spaces.Space) -> None:
    with pytest.raises(ConfigError, match="must be a Box of floats or Discrete"):
        Actions(space, None, "x")


def test_refuses_observations_without_a_size() -> None:
    with pytest.raises(ConfigError, match="'words' is a Text space"):
        Observations(spaces.Dict({"words": spaces.Text(5)}), "x")


@pytest.mark.parametrize(
    ("env_id", "says"),
    [
        ("gymnasium:Pendulun-v1", "did you mean .*gymnasium:Pendulum-v1"),
        ("gymnasium:no_such_package:MyEnv-v0", "no package 'no_such_package'"),
        ("gymnasium:Blackjack-v1", "set env.params.max_episode_steps"),
    ],
)
def test_errors_say_what_to_do(env_id: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        envs.make(env_id, workers=0)


def test_states_of_what_cannot_be_seen_into_are_not_promised() -> None:
    class Opaque(Goals):
        def __init__(self, **params: Any) -> None:
            super().__init__(**params)
            self.handle = (n for n in range(3))

    gymnasium.register("Opaque-v0", Opaque, max_episode_steps=6)
    env = envs.make("gymnasium:Opaque-v0", workers=0)
    assert env.fidelity == "none"
    with pytest.raises(TypeError, match="cannot save"):
        env.get_state()


def test_a_package_is_imported_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = "'gymnasium.envs.classic_control:PendulumEnv', max_episode_steps=9"
    text = f"import gymnasium\ngymnasium.register('Mine-v0', {entry})"
    (tmp_path / "my_own_package.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    env = envs.make("gymnasium:my_own_package:Mine-v0", workers=0)
    assert (env.robot.env_id, env.robot.max_episode_steps) == ("gymnasium:my_own_package:Mine-v0", 9)
