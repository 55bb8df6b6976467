"""The real tasks on both engines: from the same recorded states, with the same actions, within stated tolerances."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pytest
import torch

pytest.importorskip("jax", reason="extra mjx")
pytest.importorskip("mujoco.mjx", reason="extra mjx")

from robo_rlft.envs import conformance
from robo_rlft.envs.base import BatchEnv, ChunkResult, EnvState
from robo_rlft.envs.mjx.engine import MjxEnv
from robo_rlft.envs.mjx.family import find_task
from robo_rlft.envs.mjx.model import substituted
from robo_rlft.envs.mujoco.engine import MujocoEnv
from robo_rlft.envs.mujoco.task import MujocoTask

pytestmark = pytest.mark.slow


class Case(NamedTuple):
    """How one task is compared.

    Attributes:
        median: allowed error of the median environment in float32, relative to 1 + |value|.
        worst: allowed error of every environment.
        states: recorded states.
        steps: control steps from each.
        physics: options of BOTH engines where MJX's own differ by more than rounding.
    """

    median: float
    worst: float
    states: int = 100
    steps: int = 10
    physics: Mapping[str, Any] = {}


CASES = {
    "Hopper": Case(2e-5, 1e-4),
    "Walker2d": Case(2e-4, 2e-3),
    "HalfCheetah": Case(5e-4, 0.2),
}
LENT = tuple(rule for rule in conformance.RULES if rule.__name__ != "closes")
"""Rules for borrowed environments; a toy of the same engine shows that it closes."""
DOUBLE = 1e-6
"""Allowed in float64, contacts included: solvers stop when the cost improves by less than 1e-8."""
IN_THE_AIR = 1e-9
"""Allowed in float64 over 100 control steps without contact."""


@pytest.mark.parametrize("name", CASES)
def test_float64_equals_the_cpu_engine(name: str) -> None:
    mine, theirs = both_from_recorded_states(name, torch.float64)
    assert torch.equal(mine.length, theirs.length)
    assert errors(mine, theirs).max() < DOUBLE


@pytest.mark.parametrize("name", CASES)
def test_float32_stays_near_the_cpu_engine(name: str) -> None:
    found = errors(*both_from_recorded_states(name, torch.float32))
    assert found.median() < CASES[name].median
    assert found.max() < CASES[name].worst


@pytest.mark.parametrize("name", CASES)
def test_a_hundred_steps_in_the_air_are_equal(name: str) -> None:
    task = dataclasses.replace(task_of(name), terminated=None)
    theirs = MujocoEnv(task, 3, seed=0, threads=1, dtype=torch.float64)
    mine = MjxEnv(task, 3, seed=0, threads=1, dtype=torch.float64)
    state = raised(theirs)
    theirs.set_state(state)
    mine.set_state(state)
    actions = random_actions(theirs, 100)
    assert errors(mine.step_chunk(actions, "all"), theirs.step_chunk(actions, "all")).max() < IN_THE_AIR


@pytest.mark.parametrize("rule", LENT, ids=lambda rule: rule.__name__)
def test_hopper_follows(rule: conformance.Rule, lend: Callable[..., Any]) -> None:
    conformance.follow(rule, lambda num_envs: lend("mjx:Hopper", num_envs))


def both_from_recorded_states(name: str, dtype: torch.dtype) -> tuple[ChunkResult, ChunkResult]:
    """The same chunk on both engines."""
    task, case = task_of(name), CASES[name]
    theirs = MujocoEnv(task, case.states, seed=0, threads=1, dtype=torch.float64)
    state = recorded(theirs)
    mine = MjxEnv(task, case.states, seed=0, threads=1, dtype=dtype)
    mine.set_state(state)
    actions = random_actions(theirs, case.steps)
    return mine.step_chunk(actions, "all"), theirs.step_chunk(actions, "all")


def task_of(name: str) -> MujocoTask:
    """The task with its case's options of physics."""
    task, physics = find_task(name), CASES[name].physics
    return dataclasses.replace(task, model=lambda params: substituted(task.model(params), physics))


def recorded(env: MujocoEnv, steps: int = 20) -> EnvState:
    """States that a random policy comes to, each environment in an episode of its own."""
    env.step_chunk(random_actions(env, steps, seed=1))
    return env.get_state()


def raised(env: MujocoEnv) -> EnvState:
    """Starts high above the floor."""
    state = env.get_state()
    height = {"Hopper": 1, "Walker2d": 1, "HalfCheetah": 1}.get(env.task.id, 2)
    state["physics"][:, 1 + height] += 100.0  # time comes first
    return state


def random_actions(env: BatchEnv, steps: int, seed: int = 0) -> torch.Tensor:
    spec, rng = env.robot.action, torch.Generator().manual_seed(seed)
    low, high = torch.tensor(spec.low).double(), torch.tensor(spec.high).double()
    return low + (high - low) * torch.rand(env.num_envs, steps, len(low), generator=rng, dtype=torch.float64)


def errors(mine: ChunkResult, theirs: ChunkResult) -> torch.Tensor:
    """The largest error of each environment's observations and rewards, up to the end of its episode."""
    assert mine.trace is not None
    assert theirs.trace is not None
    steps = theirs.reward.shape[1]
    until = torch.arange(steps + 1) <= torch.minimum(mine.length, theirs.length)[:, None]
    worst = relative(mine.reward, theirs.reward).where(until[:, 1:], 0.0).amax(1)
    for key, values in theirs.trace.items():
        worst = worst.maximum(relative(mine.trace[key], values).amax(2).where(until, 0.0).amax(1))
    return worst


def relative(mine: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    return (mine.double() - theirs.double()).abs() / (1.0 + theirs.double().abs())
