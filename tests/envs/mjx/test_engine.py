"""The engine on JAX gives the CPU engine's numbers, through ends and resets, on tasks that compile in seconds."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("jax", reason="extra mjx")
pytest.importorskip("mujoco.mjx", reason="extra mjx")

from mjx_toys import BALL_TASK, CART_TASK, CHASE_TASK

from robo_rlft import envs
from robo_rlft.envs import conformance, experts, registry
from robo_rlft.envs.base import BatchEnv, ChunkResult
from robo_rlft.envs.mjx.engine import MjxEnv
from robo_rlft.envs.mujoco.engine import MujocoEnv
from robo_rlft.envs.mujoco.task import MujocoTask
from robo_rlft.errors import SpecError

N, STEPS = 5, 12
EXACT = 1e-9
"""In float64 both engines do the same sums in another order; the toys' solver goes on until it is exact."""


def on_jax(task: MujocoTask = CART_TASK, num: int = N, **kwargs: Any) -> MjxEnv:
    return MjxEnv(task, num, **{"seed": 0, "threads": 1, "dtype": torch.float64, **kwargs})


def on_cpu(task: MujocoTask = CART_TASK, num: int = N, **kwargs: Any) -> MujocoEnv:
    return MujocoEnv(task, num, **{"seed": 0, "threads": 1, "dtype": torch.float64, **kwargs})


def pushes(env: BatchEnv, steps: int = STEPS, seed: int = 0) -> torch.Tensor:
    """Forwards more than backwards, so that episodes end at different times."""
    high = env.robot.action.high[0]
    draws = torch.rand(env.num_envs, steps, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return high * (2.0 * draws - 0.6)


def assert_same(mine: ChunkResult, theirs: ChunkResult, tolerance: float) -> None:
    close = {"atol": tolerance, "rtol": tolerance, "check_dtype": False}
    for name in ("terminated", "truncated", "length", "success"):
        assert torch.equal(getattr(mine, name), getattr(theirs, name)), name
    torch.testing.assert_close(mine.reward, theirs.reward, **close)
    for name in ("obs", "final_obs", "trace", "metrics"):
        left, right = getattr(mine, name), getattr(theirs, name)
        assert left.keys() == right.keys()
        for key in left:
            torch.testing.assert_close(left[key], right[key], **close, msg=lambda m, n=name, k=key: f"{n}/{k}: {m}")


@pytest.mark.parametrize("task", [CART_TASK, BALL_TASK, CHASE_TASK], ids=lambda task: task.id)
def test_equals_the_cpu_engine_through_ends_and_resets(task: MujocoTask) -> None:
    mine, theirs = on_jax(task), on_cpu(task)
    ended = 0
    for k in range(6):
        actions = pushes(theirs, seed=k)
        left, right = mine.step_chunk(actions, "all"), theirs.step_chunk(actions, "all")
        assert_same(left, right, EXACT)
        ended += int(right.done.sum())
    assert ended > N  # beyond the starts that were waiting at first


def test_float32_stays_near() -> None:
    mine, theirs = on_jax(dtype=torch.float32), on_cpu()
    left, right = mine.step_chunk(pushes(theirs), "all"), theirs.step_chunk(pushes(theirs), "all")
    assert left.reward.dtype == left.obs["policy"].dtype == torch.float32
    assert_same(left, right, 1e-5)


def test_states_travel_between_the_engines() -> None:
    mine, theirs = on_jax(), on_cpu(seed=40)
    theirs.step_chunk(pushes(theirs))
    saved = theirs.get_state()
    mine.set_state(saved)
    again = mine.get_state()
    assert again.keys() == saved.keys()
    for name, values in saved.items():
        assert again[name].dtype == values.dtype, name
        np.testing.assert_array_equal(again[name], values, name)
    for k in range(4):  # the generators travelled too: resets after this are the same
        actions = pushes(theirs, seed=k)
        assert_same(mine.step_chunk(actions, "all"), theirs.step_chunk(actions, "all"), EXACT)
    theirs.set_state(mine.get_state())
    assert_same(mine.step_chunk(actions, "all"), theirs.step_chunk(actions, "all"), EXACT)


def test_a_restored_state_has_the_same_future_to_the_bit() -> None:
    env = on_jax()
    env.step_chunk(pushes(env), "all")
    saved = env.get_state()
    first = [env.step_chunk(pushes(env, seed=k), "all") for k in range(4)]
    env.set_state(saved)
    for k, result in enumerate(first):
        assert_same(env.step_chunk(pushes(env, seed=k), "all"), result, 0.0)


def test_some_states_go_to_other_environments() -> None:
    env = on_jax()
    env.step_chunk(pushes(env), "all")
    before = env.get_state()
    obs = env.set_state(env.get_state([3, 1]), [0, 4])
    after = env.get_state()
    for name, values in before.items():
        np.testing.assert_array_equal(after[name], values[[3, 1, 2, 3, 1]], name)
    assert torch.equal(obs["policy"], obs["policy"][[3, 1, 2, 3, 1]])
    env.fork(2, [0, 1])
    actions = pushes(env)[:1].repeat(N, 1, 1)
    result = env.step_chunk(actions, "all")
    assert torch.equal(result.reward[:2], result.reward[[2, 2]])


def test_a_state_of_another_task_is_refused() -> None:
    env = on_jax()
    with pytest.raises(SpecError, match=r"the saved state has .* for 'physics' where mjx:Cart needs"):
        env.set_state(on_cpu(BALL_TASK).get_state())


def test_resets_draw_from_each_environments_own_generator() -> None:
    mine, theirs = on_jax(), on_cpu()
    for kwargs in ({"seed": 7}, {"options": {"ids": [1, 3]}}, {"seed": [5, 9], "options": {"ids": [0, 2]}}, {}):
        left, right = mine.reset(**kwargs)[0], theirs.reset(**kwargs)[0]
        assert torch.equal(left["policy"], right["policy"]), kwargs
    assert_same(mine.step_chunk(pushes(mine), "all"), theirs.step_chunk(pushes(mine), "all"), EXACT)


def test_the_clock_truncates_and_what_follows_is_not_executed() -> None:
    env = on_jax()
    state = env.get_state()
    state["elapsed"][:], state["variable/goal"][:] = env.max_episode_steps - 7, 50.0
    env.set_state(state)
    result = env.step_chunk(pushes(env), "all")
    assert result.length.tolist() == [7] * N
    assert result.truncated.all()
    assert not result.terminated.any()
    assert (result.reward[:, 7:] == 0).all()
    assert result.trace is not None
    assert (result.trace["policy"][:, 7:] == result.final_obs["policy"][:, None]).all()
    np.testing.assert_array_equal(env.get_state()["elapsed"], 0)


def test_what_is_not_a_number_ends_its_own_episode_alone(tmp_path: Path) -> None:
    env = on_jax(capture_nan=tmp_path)
    state = env.get_state()
    state["variable/poison"][:], state["variable/goal"][:] = 0.05, 1.0
    env.set_state(state)
    actions = torch.full((N, STEPS, 1), -1.0, dtype=torch.float64)
    actions[2] = 4.0
    result = env.step_chunk(actions, "all")
    length = int(result.length[2])
    assert result.truncated.tolist() == [False, False, True, False, False]
    assert not result.terminated.any()
    assert result.length.tolist() == [STEPS, STEPS, length, STEPS, STEPS]
    assert result.reward.isfinite().all()
    assert result.reward[2, length - 1] == 0.0
    assert result.trace is not None
    assert torch.equal(result.final_obs["policy"][2], result.trace["policy"][2, length - 1])  # the last good one
    assert result.final_obs["policy"][2, 0] < 0.05
    assert env.nan_resets == 1
    saved = np.load(tmp_path / "Cart-0.npz")
    assert saved["ids"].tolist() == [2]
    assert saved["elapsed"].tolist() == [length]
    assert saved["action"].tolist() == [[4.0]]
    assert saved["physics"][0, 1] == float(result.final_obs["policy"][2, 0])  # time, then x
    assert env.step_chunk(actions, "all").reward.isfinite().all()


def test_physics_beyond_all_bounds_is_given_up() -> None:
    env = on_jax()
    state = env.get_state()
    state["variable/goal"][:] = 1e20
    state["physics"][1, 2] = 1e12  # its speed
    env.set_state(state)
    result = env.step_chunk(pushes(env), "all")
    assert result.truncated.tolist() == [False, True, False, False, False]
    assert result.length[1] == 1
    assert env.nan_resets == 1


def test_actions_are_checked_before_anything_moves_and_clipped() -> None:
    env = on_jax()
    before = env.get_state()
    bad = pushes(env)
    bad[2, 3, 0] = torch.nan
    with pytest.raises(SpecError, match=r"mjx:Cart got the action nan for entry 0 \('push'\) of environment 2, step 3"):
        env.step_chunk(bad, "all")
    with pytest.raises(SpecError, match="expected floating point numbers"):
        env.step_chunk(bad.long(), "all")
    np.testing.assert_array_equal(env.get_state()["physics"], before["physics"])
    huge, most = torch.full_like(bad, 100.0), torch.full_like(bad, 4.0)
    clipped = env.step_chunk(huge, "all")
    assert (huge == 100.0).all()
    env.set_state(before)
    assert_same(env.step_chunk(most, "all"), clipped, 0.0)


def test_what_was_returned_stays() -> None:
    env = on_jax()
    result = env.step_chunk(pushes(env), "all")
    kept = {key: values.clone() for key, values in result.obs.items()}
    reward = result.reward.clone()
    for k in range(3):
        env.step_chunk(pushes(env, seed=k), "all")
    assert torch.equal(result.obs["policy"], kept["policy"])
    assert torch.equal(result.reward, reward)


def test_renders_the_state_it_is_in(opengl: None) -> None:
    mine, theirs = on_jax(), on_cpu()
    for env in (mine, theirs):
        env.step_chunk(pushes(env), "all")
    theirs.set_state(mine.get_state())
    np.testing.assert_array_equal(mine.render([1, 4], size=(48, 64)), theirs.render([1, 4], size=(48, 64)))
    assert mine.render(size=(16, 16)).shape == (N, 16, 16, 3)
    mine.close()


def test_variants_are_those_of_the_next_episodes() -> None:
    mine, theirs = on_jax(CHASE_TASK), on_cpu(CHASE_TASK)
    assert mine.variants == theirs.variants == ("far", "near")
    for env in (mine, theirs):
        env.set_variants([1, 0, 1], [0, 2, 4])
    assert mine.variant.tolist() == [0] * N
    for k in range(4):
        actions = pushes(theirs, seed=k)
        assert_same(mine.step_chunk(actions, "all"), theirs.step_chunk(actions, "all"), EXACT)
        np.testing.assert_array_equal(mine.variant, theirs.variant)
    assert set(mine.variant.tolist()) == {0, 1}
    saved = theirs.get_state()
    assert mine.get_state().keys() == saved.keys()
    mine.set_variants([0] * N)
    mine.set_state(saved)
    actions = pushes(theirs, seed=9)
    assert_same(mine.step_chunk(actions, "all"), theirs.step_chunk(actions, "all"), EXACT)
    np.testing.assert_array_equal(mine.variant, theirs.variant)
    with pytest.raises(SpecError, match="expected 5 integers from 0 to 1, numbers of far, near"):
        mine.set_variants([2] * N)


@pytest.mark.parametrize("rule", conformance.RULES, ids=lambda rule: rule.__name__)
def test_follows(rule: conformance.Rule, lend_toy: Callable[..., Any]) -> None:
    closes = rule.__name__ == "closes"
    conformance.follow(rule, (lambda num_envs: MjxEnv(CART_TASK, num_envs, threads=1)) if closes else lend_toy)


def test_every_mujoco_task_has_a_name_and_an_expert_where_the_cpu_has_one() -> None:
    family = next(f for f in registry.families() if f.name == "mjx")
    assert {"Hopper", "Walker2d", "HalfCheetah", "Ant", "Humanoid", "ArmPickPlace", "ArmPegInsert"} <= set(
        family.tasks()
    )
    env = envs.make("mjx:ArmPegInsert", 2, seed=0, clearance=0.002)
    assert env.robot.env_id == "mjx:ArmPegInsert"
    assert env.robot.task["clearance"] == 0.002
    cpu = envs.make("ArmPegInsert", 2, seed=0, clearance=0.002)
    env.robot.check(cpu.robot, "mjx", "the CPU engine")
    left, right = env.reset(seed=3)[0], cpu.reset(seed=3)[0]
    torch.testing.assert_close(left, right, atol=1e-6, rtol=1e-6)
    action = experts.make(env, seed=0).act(left)
    torch.testing.assert_close(action, experts.make(cpu, seed=0).act(right), atol=1e-4, rtol=1e-4)


def test_listing_the_environments_does_not_import_jax() -> None:
    code = "import sys; from robo_rlft.envs import registry; registry.entries(); sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
