"""The compiled stepper beside the batch that takes its place: the same bits, whatever happens."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np
import psutil
import pytest
import torch

from robo_rlft.envs.mujoco import chunk, native
from robo_rlft.envs.mujoco.engine import MujocoEnv
from robo_rlft.envs.mujoco.ranges import Outside, Range, Within
from robo_rlft.envs.mujoco.task import MujocoTask, Observation, Reward, State
from robo_rlft.envs.mujoco.tasks import ant, half_cheetah, hopper, humanoid, walker2d

pytestmark = pytest.mark.skipif(bool(native.missing()), reason=f"the compiled stepper is missing: {native.missing()}")

TASKS = (hopper.TASK, walker2d.TASK, half_cheetah.TASK, ant.TASK, humanoid.TASK)
NUM, CHUNK = 5, 7

SLIDER = """
<mujoco>
  <option timestep="0.01" gravity="0 0 0"><flag autoreset="disable"/></option>
  <worldbody>
    <body><joint name="x" type="slide"/><geom size=".1"/></body>
    <body pos="1 0 0"><joint name="y" type="slide"/><geom size=".1"/></body>
  </worldbody>
  <actuator><motor joint="x"/></actuator>
</mujoco>
"""
SLIDER_TASK = MujocoTask(
    id="Slider",
    model=lambda params: mujoco.MjModel.from_xml_string(SLIDER),
    frame_skip=2,
    max_episode_steps=20,
    observations=(Observation("x", lambda xp, state, params: state.data["qpos"], ("x", "y")),),
    rewards=(Reward("x", lambda xp, state, action, params: state.data["qpos"][:, 0]),),
    reset=lambda rng, model, params: {"qpos": np.zeros(2)},
    action_names=("push",),
    params={"open": (-1.0, 2.0), "closed": (-1.0, 2.0)},
)

Make = Callable[..., tuple[MujocoEnv, MujocoEnv]]


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Make:
    """The same environment twice, on the compiled stepper and on the batch."""

    def make(task: MujocoTask, num: int = NUM, threads: int = 2, **kwargs: Any) -> tuple[MujocoEnv, MujocoEnv]:
        settings = {"seed": 3, "threads": threads, "dtype": torch.float64, **kwargs}
        compiled = MujocoEnv(task, num, **settings)
        with monkeypatch.context() as patch:
            patch.setattr(native, "load", lambda: "switched off")
            return compiled, MujocoEnv(task, num, **settings)

    return make


def same_states(left: MujocoEnv, right: MujocoEnv) -> None:
    rows, others = left.get_state(), right.get_state()
    assert rows.keys() == others.keys()
    for name in rows:
        np.testing.assert_array_equal(rows[name], others[name], name)


def same_chunk(left: MujocoEnv, right: MujocoEnv, actions: torch.Tensor) -> torch.Tensor:
    """Run the chunk in both; returns the lengths."""
    ours, theirs = left.step_chunk(actions, "all"), right.step_chunk(actions, "all")
    for name in ("reward", "terminated", "truncated", "length", "success"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
    assert ours.trace is not None
    assert theirs.trace is not None
    for mine, other in ((ours.obs, theirs.obs), (ours.final_obs, theirs.final_obs), (ours.trace, theirs.trace)):
        assert torch.equal(mine["policy"], other["policy"])
    return ours.length


def same_step(left: MujocoEnv, right: MujocoEnv, actions: torch.Tensor) -> None:
    (obs, *rest, info), (other, *others, other_info) = left.step(actions), right.step(actions)
    assert torch.equal(obs["policy"], other["policy"])
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(rest, others, strict=True))
    assert torch.equal(info["final_obs"]["policy"], other_info["final_obs"]["policy"])


def random_actions(env: MujocoEnv, rng: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.rand(env.num_envs, *shape, len(env.task.action_names), generator=rng, dtype=torch.float64) * 2 - 1


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.id)
def test_steps_and_chunks_through_resets(task: MujocoTask, threads: int, pair: Make) -> None:
    left, right = pair(task, threads=threads, max_episode_steps=23)
    rng = torch.Generator().manual_seed(0)
    lengths = []
    for _ in range(6):
        for _ in range(5):
            same_step(left, right, random_actions(left, rng))
        lengths.append(same_chunk(left, right, random_actions(left, rng, CHUNK)))
    assert (torch.stack(lengths) < CHUNK).any()
    same_states(left, right)


@pytest.mark.parametrize("task", [hopper.TASK, ant.TASK], ids=lambda task: task.id)
def test_broken_environments(task: MujocoTask, pair: Make) -> None:
    left, right = pair(task)
    rng = torch.Generator().manual_seed(1)
    for field in ("qpos", "qvel"):
        for chunked in (False, True):
            for env in (left, right):
                env.simulation.field(field)[[1, 3]] = np.nan
            if chunked:
                assert same_chunk(left, right, random_actions(left, rng, CHUNK))[1] == 1
            else:
                same_step(left, right, random_actions(left, rng))
    assert left.nan_resets == right.nan_resets == 8
    same_chunk(left, right, random_actions(left, rng, CHUNK))
    same_states(left, right)


@pytest.mark.parametrize("task", [walker2d.TASK, humanoid.TASK], ids=lambda task: task.id)
def test_models_of_their_own(task: MujocoTask, pair: Make) -> None:
    left, right = pair(task)
    rng, draw = torch.Generator().manual_seed(2), np.random.default_rng(2)
    for ids in (None, [0, 3]):
        masses = left.simulation.model.body_mass * draw.uniform(0.7, 1.4, (NUM if ids is None else 2, 1))
        for env in (left, right):
            env.randomise("body_mass", masses, ids)
            env.randomise("geom_friction", env.simulation.model.geom_friction * 0.8, [2])
        same_step(left, right, random_actions(left, rng))
        same_chunk(left, right, random_actions(left, rng, CHUNK))
    same_states(left, right)


@pytest.mark.parametrize("task", [hopper.TASK, humanoid.TASK], ids=lambda task: task.id)
def test_a_restored_state_continues_the_same(task: MujocoTask, pair: Make) -> None:
    left, right = pair(task)
    rng = torch.Generator().manual_seed(3)
    same_chunk(left, right, random_actions(left, rng, CHUNK))
    saved, actions = left.get_state(), random_actions(left, rng, CHUNK)
    first = left.step_chunk(actions, "all")
    for env in (left, right):
        env.set_state(saved)
        again = env.step_chunk(actions, "all")
        assert torch.equal(again.reward, first.reward)
        assert torch.equal(again.obs["policy"], first.obs["policy"])


@pytest.mark.parametrize("threads", [1, 3])
def test_some_environments_step_and_the_others_keep_still(threads: int, pair: Make) -> None:
    left, right = pair(ant.TASK, threads=threads)
    ids, still = np.array([1, 4]), [0, 2, 3]
    before = left.simulation.state.copy()
    for env in (left, right):
        assert env.simulation.step(ids) is None
    np.testing.assert_array_equal(left.simulation.state, right.simulation.state)
    np.testing.assert_array_equal(left.simulation.state[still], before[still])
    np.testing.assert_array_equal(left.simulation.data["cfrc_ext"], right.simulation.data["cfrc_ext"])


@pytest.mark.parametrize("task", [hopper.TASK, humanoid.TASK], ids=lambda task: task.id)
def test_a_chunk_leaves_each_environment_at_its_own_end(task: MujocoTask, pair: Make) -> None:
    """Before any reset, the physics is where going step by step leaves it."""
    left, right = pair(task, max_episode_steps=30)
    rng = torch.Generator().manual_seed(4)
    lengths = np.zeros(NUM)
    for _ in range(4):
        actions = random_actions(left, rng, 12).numpy() * 0.4
        ours = chunk.advance_chunk(left._episodes, actions, False)
        theirs = chunk._stepped(right._episodes, actions, False)
        np.testing.assert_array_equal(ours.length, theirs.length)
        np.testing.assert_array_equal(left.simulation.state, right.simulation.state)
        lengths = np.minimum(lengths, ours.length - 12)
        for env, result in ((left, ours), (right, theirs)):
            env._episodes.begin_again(result.final, result.terminated | result.truncated)
    assert (lengths < 0).any()


@pytest.mark.parametrize("closed", [False, True])
def test_ranges_at_their_bounds(closed: bool) -> None:
    """At rest and without forces nothing moves: the position after the step is the one given."""
    ranges = (Range("qpos", "closed" if closed else "open", closed=closed), Range.at("qvel", 1, "open"))
    env = MujocoEnv(dataclasses.replace(SLIDER_TASK, terminated=Outside(ranges)), 9, seed=0, threads=1)
    values = [-1.0, np.nextafter(-1, 0), 0, np.nextafter(2, 0), 2.0, np.nextafter(2, 3), np.inf, -np.inf, np.nan]
    env.simulation.data["qpos"][:, 1] = values
    env.simulation.step(None)
    found = env.simulation.watch(env._episodes._intervals(ranges))
    state = State(env.simulation.data, {}, {})
    np.testing.assert_array_equal(found, Within(ranges)(np, state, env.params))
    assert found is not None
    assert found.tolist() == [closed, True, True, True, closed, False, False, False, False]


def test_an_error_of_mujoco_ends_only_its_own_environment(pair: Make) -> None:
    """An integrator that does not exist is an error in mj_step."""
    left, right = pair(SLIDER_TASK, 4)
    for env in (left, right):
        env.randomise("opt.integrator", 77, [2])
        before = env.simulation.state[2].copy()
        assert env.simulation.step(None) == [2]
        np.testing.assert_array_equal(env.simulation.state[2], before)
        for _ in range(2):
            assert env.step(torch.ones(4, 1).double())[3].tolist() == [False, False, True, False]
        result = env.step_chunk(torch.ones(4, 3, 1).double())
        assert result.length.tolist() == [3, 3, 1, 3]
        assert result.truncated.tolist() == [False, False, True, False]
    same_states(left, right)


def test_threads_end_with_their_environment() -> None:
    process = psutil.Process()
    MujocoEnv(SLIDER_TASK, 8, threads=2).step(torch.zeros(8, 1))
    before = process.num_threads()
    for _ in range(5):
        MujocoEnv(SLIDER_TASK, 8, threads=2).step(torch.zeros(8, 1))
    assert process.num_threads() <= before


def test_a_library_of_another_version_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "INTERFACE", -1)
    assert native.load.__wrapped__() == "compiled from another version"
    monkeypatch.setattr(native, "EXTENSION_SUFFIXES", [".nowhere"])
    assert native.load.__wrapped__() == "not compiled"
