"""The Genesis engine: states, broken physics, settings, and what it refuses."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from robo_rlft import envs
from robo_rlft.envs import registry
from robo_rlft.envs.images import ImagesConfig
from robo_rlft.envs.randomise import RandomiseConfig
from robo_rlft.errors import ConfigError, MissingExtraError, SpecError


def actions(env: Any, step: int, rows: int | None = None) -> torch.Tensor:
    """The same for every batch size: environment i's are drawn from (step, i)."""
    width = env.robot.action.shape[0]
    rng = [np.random.default_rng([step, i]) for i in range(rows or env.num_envs)]
    return torch.tensor(np.array([r.uniform(-1.0, 1.0, width) for r in rng]), dtype=torch.float32)


def roll(env: Any, steps: int, first: int = 0) -> torch.Tensor:
    return torch.stack([env.step(actions(env, first + k))[0]["policy"] for k in range(steps)])


def test_a_state_moves_to_another_batch_size(lend: Callable[..., Any]) -> None:
    """Warm starts included: the futures are the same bit for bit, in contact with the floor."""
    small, large = lend("PandaLift", 3), lend("PandaLift", 4)
    small.reset(seed=5)
    roll(small, 12)
    large.reset(seed=50)
    large.set_state(small.get_state([2, 0]), [1, 3])
    after_small, after_large = [], []
    for k in range(15):
        action = actions(small, k)
        after_small.append(small.step(action)[0]["policy"][[2, 0]])
        moved = torch.zeros(4, action.shape[1])
        moved[[1, 3]] = action[[2, 0]]
        after_large.append(large.step(moved)[0]["policy"][[1, 3]])
    assert torch.equal(torch.stack(after_small), torch.stack(after_large))
    small.close()
    large.close()


def test_without_warm_starts_the_future_drifts(lend: Callable[..., Any]) -> None:
    """What the state holds beyond positions and velocities matters: this is what `exact` rests on."""
    env = lend("PandaLift", 3)
    env.reset(seed=5)
    action = torch.zeros(3, 7)
    action[:, 2] = -1.0
    for _ in range(20):
        env.step(action)
    saved = env.get_state()
    live = roll(env, 5)
    env.set_state(saved)
    env.world.entities["cube"].set_qpos(torch.from_numpy(env.world.fields["cube.qpos"].copy()), zero_velocity=False)
    drifted = roll(env, 5)
    assert 0.0 < (live - drifted).abs().max() < 0.05
    env.close()


def test_numpy_and_torch_give_the_same(lend: Callable[..., Any]) -> None:
    """What a GPU runs, run on the CPU."""
    for task in ("PandaLift", "Go2Flat"):
        in_numpy, in_torch = lend(task, 3), lend(task, 3, torch_on_cpu=True)
        assert isinstance(in_torch.world.fields["robot.qpos"], torch.Tensor)
        first, second = (env.reset(seed=3)[0]["policy"] for env in (in_numpy, in_torch))
        torch.testing.assert_close(first, second, atol=1e-6, rtol=0)
        chunk = torch.stack([actions(in_numpy, k) * 0.2 for k in range(4)], 1)
        one, two = (env.step_chunk(chunk, record="all") for env in (in_numpy, in_torch))
        torch.testing.assert_close(one.trace["policy"], two.trace["policy"], atol=2e-3, rtol=1e-3)
        torch.testing.assert_close(one.reward, two.reward, atol=1e-3, rtol=1e-2)
        assert one.metrics.keys() == two.metrics.keys()
        two.obs["policy"].sum()
        in_torch.set_state(in_torch.get_state())
        in_numpy.close()
        in_torch.close()


def test_broken_physics_ends_one_episode_only(lend: Callable[..., Any]) -> None:
    broken, whole = lend("PandaLift", 3), lend("PandaLift", 3)
    for env in (broken, whole):
        env.reset(seed=9)
        roll(env, 3)
    before, resets = broken.step(actions(broken, 3))[0]["policy"], broken.nan_resets
    whole.step(actions(whole, 3))
    broken.world.fields["robot.qvel"][1] = np.nan
    obs, reward, terminated, truncated, info = broken.step(actions(broken, 4))
    expected = whole.step(actions(whole, 4))
    assert truncated.tolist() == [False, True, False]
    assert not terminated.any()
    assert reward[1] == 0.0
    assert broken.nan_resets == resets + 1
    assert torch.equal(info["final_obs"]["policy"][1], before[1])
    assert torch.equal(obs["policy"][[0, 2]], expected[0]["policy"][[0, 2]])
    assert roll(broken, 40, 5).isfinite().all()
    broken.close()
    whole.close()


def test_a_chunk_ends_at_the_time_limit_and_holds_still(lend: Callable[..., Any]) -> None:
    env = lend("PandaLift", 3, max_episode_steps=7)
    env.reset(seed=1)
    env.step_chunk(torch.zeros(3, 2, 7))
    env.reset(options={"ids": [1]})
    result = env.step_chunk(torch.ones(3, 8, 7), record="all")
    assert result.length.tolist() == [5, 7, 5]
    assert result.truncated.all()
    assert not result.terminated.any()
    assert torch.equal(result.trace["policy"][0, 5], result.trace["policy"][0, 8])
    assert torch.equal(result.trace["policy"][0, 5], result.final_obs["policy"][0])
    assert not torch.equal(result.obs["policy"], result.final_obs["policy"])
    env.close()


def test_one_setting_per_process(lend: Callable[..., Any]) -> None:
    lend("PandaLift", 3).close()
    others: tuple[dict[str, Any], ...] = ({"dtype": torch.float64}, {"threads": 2})
    for other in others:
        with pytest.raises(ConfigError, match="another process"):
            envs.make("genesis:PandaLift", 1, **other)
    with pytest.raises(ConfigError, match="device=cpu"):
        envs.make("genesis:PandaLift", 1, device="meta")


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        ("PandaLyft", {}, "did you mean PandaLift"),
        ("PandaLift", {"lift_hight": 0.1}, "did you mean lift_height"),
        ("PandaLift", {"lift_height": "high"}, "expected a number"),
        ("PandaReach", {"goal_low": (0.1, 0.2)}, "expected 3 values"),
        ("PandaLift", {"images": ImagesConfig(cameras=["front"])}, "gives no images"),
        ("PandaLift", {"randomise": RandomiseConfig(push_velocity=1.0)}, "cannot vary env.randomise.push_velocity"),
        ("Go2Flat", {"randomise": RandomiseConfig(colour=1.0)}, "cannot vary env.randomise.colour"),
    ],
)
def test_refuses(task: str, settings: dict[str, Any], message: str) -> None:
    if importlib.util.find_spec("genesis") is None:
        pytest.skip("extra genesis")
    with pytest.raises(ConfigError, match=message):
        envs.make(f"genesis:{task}", 1, **settings)


def test_refuses_states_of_another_scene(lend: Callable[..., Any]) -> None:
    arm, dog = lend("PandaLift", 3), lend("Go2Flat", 3)
    with pytest.raises(SpecError, match="saved from the same task"):
        arm.set_state(dog.get_state())
    with pytest.raises(SpecError, match="one row per environment"):
        arm.set_state(arm.get_state([0, 1]))
    arm.close()
    dog.close()


def test_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_found", lambda package: package != "genesis")
    with pytest.raises(MissingExtraError, match=r"pip install 'robo-rlft\[genesis\]'"):
        envs.make("genesis:PandaLift")


def test_importing_genesis_leaves_the_interpreter_alone(lend: Callable[..., Any]) -> None:
    lend("PandaLift", 3).close()
    assert sys.excepthook.__module__ != "genesis"
    importlib.import_module("torch.utils.cpp_extension")  # as torch.compile does: setuptools must have come first
