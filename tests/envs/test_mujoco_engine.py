"""The MuJoCo engine on tasks whose answers are known in closed form, and on its own two ways to step a chunk."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robo_rlft import envs
from robo_rlft.envs.mujoco.engine import MujocoEnv
from robo_rlft.envs.mujoco.task import Array, MujocoTask, Observation, Params, Reward, State
from robo_rlft.errors import ConfigError, SpecError, UserError

TIMESTEP_S, SKIP, GRAVITY = 0.01, 5, 10.0

CART = """
<mujoco>
  <option timestep="0.01" gravity="0 0 -10"/>
  <worldbody>
    <camera name="side" pos="0 -3 1" xyaxes="1 0 0 0 0 1"/>
    <light pos="0 -1 3"/>
    <body name="cart">
      <joint name="x" type="slide" axis="1 0 0"/><geom name="box" type="box" size=".1 .1 .1" mass="2"/>
    </body>
  </worldbody>
  <actuator><motor name="push" joint="x"/></actuator>
  <sensor><framepos name="where" objtype="body" objname="cart"/></sensor>
</mujoco>
"""


def start(rng: np.random.Generator, model: mujoco.MjModel, params: Params) -> Mapping[str, np.ndarray]:
    return {"qpos": rng.uniform(-params["spread"], params["spread"], 1), "goal": rng.uniform(1, 2, 1)}


def motion(xp: Any, state: State, params: Params) -> Array:
    return xp.concatenate((state.data["qpos"], state.data["qvel"], state.variables["goal"]), -1)


def moved(xp: Any, state: State, action: Array, params: Params) -> Array:
    return state.data["qpos"][:, 0] - state.previous["qpos"][:, 0]


def beyond(xp: Any, state: State, params: Params) -> Array:
    return state.data["qpos"][:, 0] > params["end"]


def halfway(xp: Any, state: State, params: Params) -> Array:
    return state.data["qpos"][:, 0] > params["end"] / 2


CART_TASK = MujocoTask(
    id="Cart",
    model=lambda params: mujoco.MjModel.from_xml_string(CART),
    frame_skip=SKIP,
    max_episode_steps=30,
    observations=(Observation("motion", motion, ("x", "speed", "goal"), ("m", "m/s", "m")),),
    rewards=(Reward("moved", moved, 3.0),),
    terminated=beyond,
    success=halfway,
    reset=start,
    action_names=("push",),
    previous=("qpos",),
    action_low=-4.0,
    action_high=4.0,
    params={"spread": 0.0, "end": 0.5},
    cameras=("side",),
)


def push(xp: Any, state: State, action: Array, params: Params) -> Mapping[str, Array]:
    return {"ctrl": action, "goal": state.variables["goal"]}


STEPPED_CART = dataclasses.replace(CART_TASK, control=push)
"""The same physics, but with a control law: chunks go step by step."""


def cart(num: int = 2, task: MujocoTask = CART_TASK, **kwargs: Any) -> MujocoEnv:
    return MujocoEnv(task, num, **{"seed": 0, "threads": 1, "dtype": torch.float64, **kwargs})


def position(force: float, substeps: int) -> float:
    """Semi-implicit Euler at rest from 0: x = a dt^2 n (n + 1) / 2, with a = F / 2 kg."""
    return force / 2 * TIMESTEP_S**2 * substeps * (substeps + 1) / 2


@pytest.mark.usefixtures("stepper")
def test_step_follows_newton() -> None:
    env = cart()
    obs, reward, terminated, truncated, info = env.step(torch.tensor([[1.0], [-2.0]]).double())
    expected = torch.tensor([position(1, SKIP), position(-2, SKIP)]).double()
    torch.testing.assert_close(obs["policy"][:, 0], expected)
    torch.testing.assert_close(reward, 3 * expected)
    assert not (terminated | truncated | info["success"]).any()


@pytest.mark.usefixtures("stepper")
def test_chunk_pays_each_step_and_stops_at_the_end() -> None:
    for task in (CART_TASK, STEPPED_CART):
        env = cart(task=task)
        result = env.step_chunk(torch.tensor([4.0, 1.0]).double().repeat(20, 1).T[:, :, None].contiguous(), "all")
        path = [position(4, SKIP * h) for h in range(21)]
        end = next(h for h in range(21) if path[h] > 0.5)
        assert result.length.tolist() == [end, 20]
        assert result.terminated.tolist() == [True, False]
        assert result.success.tolist() == [True, position(1, 100) > 0.25]
        expected = torch.tensor([3 * (path[h + 1] - path[h]) if h < end else 0.0 for h in range(20)]).double()
        torch.testing.assert_close(result.reward[0], expected)
        assert result.trace is not None
        torch.testing.assert_close(result.trace["policy"][0, : end + 1, 0], torch.tensor(path[: end + 1]).double())
        assert (result.trace["policy"][0, end:] == result.final_obs["policy"][0]).all()
        assert result.obs["policy"][0, 0] == 0.0
        torch.testing.assert_close(result.obs["policy"][1], result.final_obs["policy"][1])


def test_a_control_law_may_hand_one_variable_on_to_another() -> None:
    def remembered(xp: Any, state: State, action: Array, params: Params) -> Mapping[str, Array]:
        return {"ctrl": action, "now": action, "before": state.variables["now"]}

    def begin(rng: np.random.Generator, model: mujoco.MjModel, params: Params) -> Mapping[str, np.ndarray]:
        return {**start(rng, model, params), "now": np.zeros(1), "before": np.zeros(1)}

    env = cart(task=dataclasses.replace(CART_TASK, control=remembered, reset=begin))
    for push_n in (1.0, 2.0):
        env.step(torch.full((2, 1), push_n).double())
    state = env.get_state()
    assert state["variable/now"].tolist() == [[2.0], [2.0]]
    assert state["variable/before"].tolist() == [[1.0], [1.0]]


@pytest.mark.usefixtures("stepper")
def test_truncation_is_not_termination() -> None:
    env = cart(max_episode_steps=3)
    for _ in range(2):
        *_, truncated, _ = env.step(torch.zeros(2, 1))
        assert not truncated.any()
    _, _, terminated, truncated, _ = env.step(torch.zeros(2, 1))
    assert truncated.all()
    assert not terminated.any()
    result = env.step_chunk(torch.zeros(2, 5, 1))
    assert result.length.tolist() == [3, 3]
    assert result.truncated.all()


@pytest.mark.usefixtures("stepper")
def test_success_is_remembered_until_the_episode_ends() -> None:
    env = cart(end=100.0)
    env.set_state(env.get_state())
    env._episodes.simulation.data["qpos"][0] = 60.0
    assert env.step(torch.zeros(2, 1))[-1]["success"].tolist() == [True, False]
    env._episodes.simulation.data["qpos"][0] = 0.0
    assert env.step(torch.zeros(2, 1))[-1]["success"].tolist() == [True, False]
    _, info = env.reset(options={"ids": [0]})
    assert not info["success"].any()


def test_a_term_may_hand_out_live_memory() -> None:
    live = dataclasses.replace(
        CART_TASK, rewards=(Reward("x", lambda xp, state, action, params: state.data["qpos"][:, 0]),)
    )
    env = cart(task=live)
    _, reward, *_ = env.step(torch.ones(2, 1))
    kept = reward.clone()
    env.step(torch.ones(2, 1))
    assert torch.equal(reward, kept)


def test_actions_are_clipped() -> None:
    env = cart()
    obs, *_ = env.step(torch.tensor([[9.0], [4.0]]))
    assert obs["policy"][0, 0] == obs["policy"][1, 0]


@pytest.mark.usefixtures("stepper")
@pytest.mark.parametrize("env_id", ["Hopper", "Walker2d", "HalfCheetah", "Ant", "Humanoid"])
def test_compiled_and_stepped_chunks_are_bit_equal(env_id: str) -> None:
    task = importlib.import_module(f"robo_rlft.envs.mujoco.tasks.{_module(env_id)}").TASK
    slow = dataclasses.replace(task, control=lambda xp, state, action, params: {"ctrl": action})
    compiled, stepped = (MujocoEnv(t, 6, seed=3, threads=2, max_episode_steps=33) for t in (task, slow))
    rng = torch.Generator().manual_seed(0)
    ends = 0
    for _ in range(12):
        compiled._episodes.idle_share = 0.0  # or the many falls of random actions would make both go step by step
        actions = torch.rand(6, 7, len(task.action_names), generator=rng) * 2 - 1
        left, right = compiled.step_chunk(actions, "all"), stepped.step_chunk(actions, "all")
        for name in ("reward", "terminated", "truncated", "length", "success"):
            assert torch.equal(getattr(left, name), getattr(right, name)), name
        assert left.trace is not None
        assert right.trace is not None
        assert torch.equal(left.trace["policy"], right.trace["policy"])
        assert torch.equal(left.obs["policy"], right.obs["policy"])
        assert torch.equal(left.final_obs["policy"], right.final_obs["policy"])
        ends += int(left.done.sum())
    assert ends > 0
    for name, rows in compiled.get_state().items():
        np.testing.assert_array_equal(rows, stepped.get_state()[name], name)


def test_chunks_that_cannot_see_the_many_falls_of_a_policy_go_step_by_step(stepper: str) -> None:
    task = importlib.import_module("robo_rlft.envs.mujoco.tasks.hopper").TASK
    assert chunks_rolled(task, 60) == 60 if stepper == "compiled" else 0 < chunks_rolled(task, 60) < 30
    fallen = dataclasses.replace(task, terminated=lambda xp, state, params: state.data["qpos"][:, 1] < 0.8)
    assert 0 < chunks_rolled(fallen, 60) < 30


def chunks_rolled(task: MujocoTask, chunks: int) -> int:
    env = MujocoEnv(task, 8, seed=0, threads=1)
    rolled: list[int] = []
    roll = env.simulation.roll
    env.simulation.roll = lambda *arguments: (rolled.append(1), roll(*arguments))[1]
    rng = torch.Generator().manual_seed(0)
    for _ in range(chunks):
        env.step_chunk(torch.rand(8, 10, 3, generator=rng) * 2 - 1)
    return len(rolled)


def _module(env_id: str) -> str:
    return {"HalfCheetah": "half_cheetah"}.get(env_id, env_id.lower())


@pytest.mark.usefixtures("stepper")
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_change_nothing(threads: int) -> None:
    def last(count: int) -> torch.Tensor:
        env = envs.make("Ant", 5, seed=0, threads=count)
        rng = torch.Generator().manual_seed(0)
        for _ in range(10):
            obs, *_ = env.step(torch.rand(5, 8, generator=rng) * 2 - 1)
        return obs["policy"]

    assert torch.equal(last(threads), last(1))


def test_reset_draws_what_gymnasium_draws() -> None:
    env = cart(3, seed=7, spread=0.5)
    for i in range(3):
        rng = np.random.default_rng(7 + i)
        assert env.reset(seed=7)[0]["policy"][i, 0] == rng.uniform(-0.5, 0.5, 1)[0]
    obs, _ = env.reset(seed=[4, 4, 9])
    assert torch.equal(obs["policy"][0], obs["policy"][1])
    assert not torch.equal(obs["policy"][0], obs["policy"][2])


@pytest.mark.usefixtures("stepper")
def test_nan_guard_ends_only_the_broken_episode(tmp_path: Path) -> None:
    for chunked in (False, True):
        env = cart(3, capture_nan=tmp_path / str(chunked))
        env.step(torch.ones(3, 1))
        before = env._episodes.obs["policy"].copy()
        env.simulation.data["qvel"][1] = np.nan
        if chunked:
            result = env.step_chunk(torch.ones(3, 4, 1))
            truncated, terminated, final = result.truncated, result.terminated, result.final_obs["policy"]
            assert result.length.tolist() == [4, 1, 4]
            assert result.reward.isfinite().all()
            obs = result.obs["policy"]
        else:
            groups, reward, terminated, truncated, info = env.step(torch.ones(3, 1))
            obs, final = groups["policy"], info["final_obs"]["policy"]
            assert reward[1] == 0
            assert reward.isfinite().all()
        assert truncated.tolist() == [False, True, False]
        assert not terminated.any()
        assert torch.equal(final[1], torch.from_numpy(before[1]))
        assert obs.isfinite().all()
        assert obs[1, 0] == 0
        assert env.nan_resets == 1
        env.simulation.data["qvel"][1] = np.nan
        assert env.step(torch.ones(3, 1))[3].tolist() == [False, True, False]
        assert not env.step(torch.ones(3, 1))[3].any()
        assert env.nan_resets == 2
        captured = np.load(tmp_path / str(chunked) / "Cart-0.npz")
        assert captured["ids"].tolist() == [1]
        assert np.isnan(captured["physics"]).any()


@pytest.mark.usefixtures("stepper")
def test_nan_guard_of_steps_with_contact_forces() -> None:
    env = MujocoEnv(importlib.import_module("robo_rlft.envs.mujoco.tasks.ant").TASK, 3, seed=0, threads=2)
    for count in (1, 2):
        env.simulation.data["qvel"][1] = np.nan
        obs, _, terminated, truncated, info = env.step(torch.zeros(3, 8))
        assert truncated.tolist() == [False, True, False]
        assert not terminated.any()
        assert obs["policy"].isfinite().all()
        assert info["final_obs"]["policy"].isfinite().all()
        assert env.nan_resets == count
        assert not env.step(torch.zeros(3, 8))[3].any()


@pytest.mark.usefixtures("stepper")
def test_nan_from_a_term_is_guarded_too() -> None:
    broken = dataclasses.replace(
        CART_TASK,
        rewards=(Reward("log", lambda xp, state, action, params: xp.log(0.005 - state.data["qpos"][:, 0])),),
    )
    env = cart(task=broken)
    with np.errstate(invalid="ignore"):
        result = env.step_chunk(torch.tensor([0.0, 4.0]).double().repeat(6, 1).T[:, :, None].contiguous())
    assert result.truncated.tolist() == [False, True]
    assert result.reward.isfinite().all()
    assert env.nan_resets == 1


@pytest.mark.usefixtures("stepper")
def test_randomised_mass_follows_newton_and_travels_with_the_state() -> None:
    env = cart()
    env.randomise("body_mass", [[0.0, 2.0], [0.0, 4.0]])
    obs, *_ = env.step(torch.full((2, 1), 4.0).double())
    expected = torch.tensor([position(4, SKIP), position(2, SKIP)]).double()
    torch.testing.assert_close(obs["policy"][:, 0], expected)
    saved = env.get_state([1])
    other = cart(1)
    other.set_state(saved)
    assert torch.equal(
        other.step(torch.ones(1, 1).double())[0]["policy"][0], env.step(torch.ones(2, 1).double())[0]["policy"][1]
    )


@pytest.mark.usefixtures("stepper")
def test_model_fields_are_readable_per_environment() -> None:
    heavy = dataclasses.replace(
        CART_TASK,
        fields=("qpos", "qvel", "body_mass"),
        rewards=(Reward("mass", lambda xp, state, action, params: state.data["body_mass"][:, 1]),),
    )
    env = cart(task=heavy)
    assert env.step_chunk(torch.zeros(2, 2, 1)).reward.tolist() == [[2.0, 2.0], [2.0, 2.0]]
    env.randomise("body_mass", [[0.0, 3.0]], ids=[1])
    assert env.step(torch.zeros(2, 1))[1].tolist() == [2.0, 3.0]


@pytest.mark.usefixtures("stepper")
def test_fresh_fields_belong_to_the_new_state() -> None:
    def where(xp: Any, state: State, params: Params) -> Array:
        return state.data["sensordata"][:, :1] - state.data["qpos"]

    lag = dataclasses.replace(
        CART_TASK, fields=("qpos", "sensordata"), observations=(Observation("lag", where, ("lag",)),)
    )
    for fresh in (True, False):
        env = cart(task=dataclasses.replace(lag, fresh=fresh, previous=("qpos",)))
        obs, *_ = env.step(torch.full((2, 1), 4.0).double())
        last_substep = position(4, SKIP - 1) - position(4, SKIP)
        torch.testing.assert_close(obs["policy"][0, 0].item(), 0.0 if fresh else last_substep)


def test_render_gives_each_environment_its_own_image() -> None:
    env = cart(3)
    env.simulation.data["qpos"][2] = 0.4
    images = env.render(size=(48, 64))
    assert images.shape == (3, 48, 64, 3)
    assert images.dtype == np.uint8
    assert (images[0] == images[1]).all()
    assert (images[0] != images[2]).any()
    assert env.render([1], camera="side", size=(20, 30)).shape == (1, 20, 30, 3)
    with pytest.raises(UserError, match="did you mean side"):
        env.render(camera="sidee")
    env.close()


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (torch.full((2, 1), torch.nan), "entry 0 .'push'. of environment 0"),
        (torch.tensor([[0.0], [torch.inf]]), "environment 1"),
        (torch.zeros(2, 2), r"shape \(2, 2\): expected \(2, 1\)"),
        (torch.zeros(2, 1, dtype=torch.int64), "int64: expected floating point"),
    ],
)
def test_bad_actions_are_explained(action: torch.Tensor, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        cart().step(action)


def test_bad_chunks_are_explained() -> None:
    chunk = torch.zeros(2, 3, 1)
    chunk[1, 2, 0] = torch.nan
    with pytest.raises(SpecError, match="environment 1, step 2 of the chunk"):
        cart().step_chunk(chunk)
    with pytest.raises(SpecError, match="expected"):
        cart().step_chunk(torch.zeros(2, 1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cart(spreed=1.0), "unknown parameter of Cart 'spreed': did you mean spread"),
        (lambda: cart(end="far"), "end of Cart is 'far': expected a number"),
        (lambda: cart(0), "at least one environment"),
        (lambda: cart(task=dataclasses.replace(CART_TASK, fields=("qpoz",))), "unknown MuJoCo field 'qpoz'"),
        (lambda: cart(task=dataclasses.replace(CART_TASK, fields=("cfrc_ext", "qpos", "qvel"), fresh=True)), "fresh"),
        (lambda: cart().randomise("body_maas", 1.0), "did you mean .*body_mass"),
        (lambda: cart().randomise("body_mass", [1.0, 2.0, 3.0]), "cannot randomise body_mass of Cart"),
    ],
)
def test_bad_settings_are_explained(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_terms_of_the_wrong_shape_are_named() -> None:
    one = dataclasses.replace(CART_TASK, observations=(Observation("motion", motion, ("x",)),))
    with pytest.raises(ConfigError, match=r"observation 'motion' returned shape \(2, 3\)"):
        cart(task=one)


def test_fields_that_are_not_listed_are_named() -> None:
    with pytest.raises(ConfigError, match="observation 'motion' reads 'qvel': add it to the task's fields"):
        cart(task=dataclasses.replace(CART_TASK, fields=("qpos",)))


def test_foreign_states_are_refused() -> None:
    env = cart()
    with pytest.raises(SpecError, match="'physics'"):
        env.set_state(envs.make("Hopper", 2).get_state())
    with pytest.raises(SpecError, match="nothing for 'elapsed'"):
        env.set_state({k: v for k, v in env.get_state().items() if k != "elapsed"})
    with pytest.raises(SpecError, match="ids are"):
        env.get_state([0, 2])


@settings(max_examples=15, deadline=None)
@given(num=st.integers(1, 5), steps=st.integers(1, 9), data=st.data())
def test_any_chunk_is_its_steps(num: int, steps: int, data: st.DataObject) -> None:
    seed = data.draw(st.integers(0, 1000))
    actions = torch.rand(num, steps, 1, generator=torch.Generator().manual_seed(seed)).double() * 8 - 4
    chunked, single = cart(num, seed=seed, end=0.01), cart(num, seed=seed, end=0.01)
    result = chunked.step_chunk(actions)
    over = torch.zeros(num, dtype=torch.bool)
    for h in range(steps):
        _, reward, terminated, truncated, _ = single.step(actions[:, h])
        assert torch.equal(result.reward[:, h], torch.where(over, 0.0, reward))
        over |= terminated | truncated
    assert torch.equal(result.done, over)
