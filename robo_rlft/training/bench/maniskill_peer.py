"""ManiSkill on the CPU: this pool beside ManiSkill's own way, Gymnasium's `AsyncVectorEnv` of `CPUGymWrapper`.

The peer runs as ManiSkill's documentation has it: one process per environment, observations in shared memory, one
message per environment and step. All play the same random actions and take turns; each keeps its best round.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import torch

from robo_rlft import envs
from robo_rlft.envs.base import BatchEnv
from robo_rlft.training.bench import peers
from robo_rlft.training.bench.envs import CHUNK, Timing
from robo_rlft.training.bench.rows import BenchRow

ROUNDS = 3
_WARM_UP = 8
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Of the peer's processes too: there is one per environment."""


def measure(env_id: str, num_envs: int, seconds: float, threads: int) -> list[BenchRow]:
    """Environment steps per second with whole episodes and their resets, a row for single steps and one for chunks.

    Args:
        env_id: `maniskill:TASK`.
        num_envs: environments.
        seconds: about how long one round of one participant takes.
        threads: processes of ours; 0 takes one per core.

    Raises:
        ConfigError: see `envs.make`.
    """
    env = envs.make(env_id, num_envs, seed=0, threads=threads)
    try:
        actions = _random_actions(env, _fitting_steps(env, seconds))
        with _asynchronous(env_id.partition(":")[2], env) as peer:
            players: dict[str, Callable[[], int]] = {
                "step": partial(_play_steps, env, actions),
                "chunk": partial(_play_chunks, env, actions),
                "async": partial(_play_peer, peer, actions.numpy()),
            }
            timings = {name: Timing() for name in players}
            for _ in range(ROUNDS):
                for name, play in players.items():
                    timings[name].keep(*_timed(play))
    finally:
        env.close()
    return [
        _row(f"{env_id}/{mode}", mode, actions.shape[0] * num_envs, num_envs, timings) for mode in ("step", "chunk")
    ]


def make_single(task: str, robot_task: dict[str, Any]) -> gymnasium.Env:
    """One environment as ManiSkill's documentation makes it, in this process."""
    from robo_rlft.envs.maniskill import library

    library.import_mani_skill()
    from mani_skill.utils.wrappers.gymnasium import CPUGymWrapper

    torch.set_num_threads(1)
    modes = {name: robot_task[name] for name in ("control_mode", "reward_mode")}
    backends = {"sim_backend": "physx_cpu", "render_backend": "none"}
    return CPUGymWrapper(gymnasium.make(task, num_envs=1, obs_mode="state", **modes, **backends))


@contextmanager
def _asynchronous(task: str, like: BatchEnv) -> Iterator[gymnasium.vector.VectorEnv]:
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    try:
        single = partial(make_single, task, dict(like.robot.task))
        env = gymnasium.vector.AsyncVectorEnv([single] * like.num_envs, shared_memory=True, context="forkserver")
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    try:
        yield env
    finally:
        env.close()


def _play_steps(env: BatchEnv, actions: torch.Tensor) -> int:
    """The environment steps made."""
    env.reset(seed=0)
    for action in actions:
        env.step(action)
    return actions.shape[0] * env.num_envs


def _play_chunks(env: BatchEnv, actions: torch.Tensor) -> int:
    """The environment steps made: an environment that ends leaves out the rest of its chunk."""
    env.reset(seed=0)
    chunks = actions.unflatten(0, (-1, CHUNK)).transpose(1, 2)
    return sum(int(env.step_chunk(chunk).length.sum()) for chunk in chunks)


def _play_peer(env: gymnasium.vector.VectorEnv, actions: np.ndarray) -> int:
    """The environment steps made."""
    env.reset(seed=0)
    for action in actions:
        env.step(action)
    return actions.shape[0] * env.num_envs


def _timed(play: Callable[[], int]) -> tuple[float, float, int]:
    """Wall and CPU seconds, and environment steps."""
    cpu, wall = peers.cpu_seconds(), time.perf_counter()
    steps = play()
    wall = time.perf_counter() - wall
    return wall, peers.cpu_seconds() - cpu, steps


def _fitting_steps(env: BatchEnv, seconds: float) -> int:
    """A whole number of chunks that takes about so long."""
    warm_up = _random_actions(env, _WARM_UP)
    _play_steps(env, warm_up)
    wall, _, _ = _timed(partial(_play_steps, env, warm_up))
    return CHUNK * max(1, round(seconds * _WARM_UP / wall / CHUNK))


def _random_actions(env: BatchEnv, steps: int) -> torch.Tensor:
    spec = env.robot.action
    low, high = torch.tensor(spec.low), torch.tensor(spec.high)
    values = torch.rand(steps, env.num_envs, len(low), generator=torch.Generator().manual_seed(0))
    return low + (high - low) * values


def _row(env_id: str, mode: str, num_envs: int, wall: dict[str, float], cpu: dict[str, float]) -> BenchRow:
    return BenchRow(
        name=f"{env_id}/{mode}",
        num_envs=num_envs,
        value=wall[mode],
        unit="env-steps/s",
        peer_ratios={"async": wall[mode] / wall["async"]},
        detail={"per_cpu_second": cpu[mode], "async_per_cpu_second": cpu["async"]},
    )
