"""Speed of the pool beside the other ways to step the same simulator: all replay the same random actions, in turns.

For a Gymnasium id the peer is `AsyncVectorEnv` with shared memory and as many processes; for LIBERO it is LIBERO's own
environment, alone. The pool is measured one control step a call, and one chunk a call, which is what training asks for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch

from robo_rlft import envs
from robo_rlft.envs.base import BatchEnv
from robo_rlft.envs.pool.env import PoolEnv
from robo_rlft.errors import ConfigError
from robo_rlft.training.bench.envs import CHUNK, ROUNDS
from robo_rlft.training.bench.pool_peers import open_async, open_libero
from robo_rlft.training.bench.rows import BenchRow, print_table, write_json

DEFAULT = ("gymnasium:Hopper-v5", "gymnasium:Humanoid-v5")


def run(
    json_path: str | None = None, envs: Sequence[str] = DEFAULT, workers: int = 2, seconds: float = 1.0
) -> list[dict[str, Any]]:
    """Measure, print a table and return one row per case.

    Args:
        json_path: file to write the rows to, or None.
        envs: environments of a pool; peers take part for `gymnasium:` and `libero:`.
        workers: processes, and as many environments.
        seconds: about how long one round of one participant takes.

    Raises:
        ConfigError: an environment that no pool steps.
    """
    rows = [row for env_id in envs for row in _measure(env_id, workers, seconds)]
    print_table(rows, f"environment steps per second, {workers} processes")
    return write_json(rows, json_path) if json_path else [vars(row) for row in rows]


def _measure(env_id: str, workers: int, seconds: float) -> list[BenchRow]:
    env = envs.make(env_id, workers, seed=0, threads=workers)
    if not isinstance(env, PoolEnv):
        env.close()
        raise ConfigError(f"bench pool measures simulators that step one environment at a time, which {env_id} is not")
    env.reset(seed=0)
    actions = _actions(env, seconds)
    speeds: dict[str, float] = {}
    with ExitStack() as stack:
        stack.callback(env.close)
        participants = _participants(env, env_id, actions, stack)
        for _ in range(ROUNDS):
            for name, act in participants.items():
                start = time.perf_counter()
                executed = act()
                speeds[name] = max(speeds.get(name, 0.0), executed / (time.perf_counter() - start))
    peers = [name for name in speeds if name not in ("step", "chunk")]
    return [
        BenchRow(
            name=f"{env_id}/{mode}",
            num_envs=workers,
            value=speeds[mode],
            unit="env-steps/s",
            peer_ratios={peer: speeds[mode] / speeds[peer] for peer in peers},
            detail={peer: speeds[peer] for peer in peers},
        )
        for mode in ("step", "chunk")
    ]


def _participants(env: BatchEnv, env_id: str, actions: torch.Tensor, stack: ExitStack) -> dict[str, Callable[[], int]]:
    """Everyone's way to play the actions, which returns how many environment steps were made."""
    chunks = actions.unflatten(0, (-1, CHUNK)).transpose(1, 2).contiguous()
    taking_part: dict[str, Callable[[], int]] = {
        "step": lambda: _play(env.step, actions),
        "chunk": lambda: int(sum(env.step_chunk(chunk).length.sum() for chunk in chunks)),
    }
    family, _, task = env_id.partition(":")
    if family == "gymnasium":
        step = stack.enter_context(open_async(task, env.num_envs))
        taking_part["async"] = lambda: _play(step, actions.numpy())
    elif family == "libero" and env.num_envs == 1:
        step = stack.enter_context(open_libero(task))
        taking_part["libero"] = lambda: _play(step, actions.numpy())
    return taking_part


def _play(step: Callable[[Any], object], actions: np.ndarray | torch.Tensor) -> int:
    for action in actions:
        step(action)
    return len(actions) * actions.shape[1]


def _actions(env: BatchEnv, seconds: float) -> torch.Tensor:
    """Random actions for about so many seconds, a whole number of chunks, [T, N, A]."""
    rng = torch.Generator().manual_seed(0)
    low, high = torch.tensor(env.robot.action.low), torch.tensor(env.robot.action.high)
    warm_up = low + (high - low) * torch.rand(2 * CHUNK, env.num_envs, len(low), generator=rng)
    start = time.perf_counter()
    for action in warm_up:
        env.step(action)
    each = (time.perf_counter() - start) / len(warm_up)
    steps = CHUNK * max(1, int(min(seconds / each, 4000)) // CHUNK)
    return low + (high - low) * torch.rand(steps, env.num_envs, len(low), generator=rng)
