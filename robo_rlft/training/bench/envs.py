"""Speed of the MuJoCo engine beside its limit and its peers.

Every case replays one recording: random actions, the same states each time. Ours steps it with observations, rewards
and resets, one control step or one chunk a call; the limit runs `mj_step` alone in C on as many threads. All take turns
in each round, and each keeps its best round: what else runs on the machine slows some rounds, never speeds one up.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from robo_rlft import envs
from robo_rlft.envs.mujoco.engine import MujocoEnv
from robo_rlft.errors import ConfigError
from robo_rlft.training.bench import peers
from robo_rlft.training.bench.limit import replay
from robo_rlft.training.bench.rows import BenchRow, print_table, write_json

LOCOMOTION = ("Hopper", "Walker2d", "HalfCheetah", "Ant", "Humanoid")
CHUNK = 8
"""Control steps per call in the chunk cases."""
ROUNDS = 5
_RECORDING_BYTES = 200_000_000
_WARM_UP = 10


@dataclass
class Timing:
    """Best wall and CPU seconds of a number of rounds."""

    wall: float = float("inf")
    cpu: float = float("inf")

    def keep(self, wall: float, cpu: float) -> None:
        """Take in one round."""
        self.wall, self.cpu = min(self.wall, wall), min(self.cpu, cpu)


@dataclass
class Recording:
    """T control steps of N environments.

    Attributes:
        start: the environments' state before the first.
        actions: [T, N, A].
        states: physics before each step, commands included, [T, N, state].
    """

    start: envs.EnvState
    actions: torch.Tensor
    states: Float[np.ndarray, "step env state"]


@dataclass
class Case:
    """One environment and batch size, and the timings of everyone taking part.

    Attributes:
        executed: environment steps where they are fewer than recorded: in chunks, those after an episode's end.
    """

    env: MujocoEnv
    recording: Recording
    threads: int
    timings: dict[str, Timing] = field(default_factory=dict)
    executed: dict[str, int] = field(default_factory=dict)


def run(
    json_path: str | None = None,
    envs: Sequence[str] = LOCOMOTION,
    num_envs: Sequence[int] = (1, 16, 64, 256, 1024),
    seconds: float = 0.5,
    threads: int = 0,
    with_peers: bool = True,
) -> list[dict[str, Any]]:
    """Measure, print a table and return one row per case.

    Args:
        json_path: file to write the rows to, or None.
        envs: environments; peers take part in Gymnasium's five.
        num_envs: batch sizes.
        seconds: about how long one round of one participant takes.
        threads: of every participant; 0 takes all CPUs (one of Genesis).
        with_peers: measure Gymnasium's vector environments and envpool too.

    Raises:
        ConfigError: a batch size below 1, or an environment that this engine does not run.
        UserError: there is no C compiler for the limit.
    """
    asked, threads = threads, threads or os.cpu_count() or 1
    rows: list[BenchRow] = []
    for env_id in envs:
        for n in num_envs:
            if env_id.startswith("genesis:"):
                rows += _measure_genesis(env_id, n, seconds, asked)
            else:
                rows += _measure(env_id, n, seconds, threads, with_peers and env_id in LOCOMOTION)
    print_table(rows, f"environment steps per second, {threads} threads")
    return write_json(rows, json_path) if json_path else [vars(row) for row in rows]


def _measure_genesis(env_id: str, num: int, seconds: float, threads: int) -> list[BenchRow]:
    from robo_rlft.training.bench import genesis_peer

    return genesis_peer.measure(env_id, num, seconds, threads)


def _measure(env_id: str, num: int, seconds: float, threads: int, with_peers: bool) -> list[BenchRow]:
    env = envs.make(env_id, num, seed=0, threads=threads)
    if not isinstance(env, MujocoEnv):
        raise ConfigError(f"bench envs measures MuJoCo and Genesis, and {env_id} runs on neither: choose another")
    case = Case(env, _record(env, seconds), threads)
    with ExitStack() as stack:
        participants = _participants(case, stack, with_peers)
        for _ in range(ROUNDS):
            for name, act in participants.items():
                case.timings.setdefault(name, Timing()).keep(*_timed(act))
    env.close()
    return [_row(case, f"{env_id}/{mode}", mode) for mode in ("step", "chunk")]


def _participants(case: Case, stack: ExitStack, with_peers: bool) -> dict[str, Callable[[], float | None]]:
    record, env = case.recording, case.env
    chosen: dict[str, Callable[[], float | None]] = {
        "step": lambda: _play_steps(env, record),
        "limit": lambda: replay(env.simulation.model, record.states, env.task.frame_skip, case.threads)[0],
        "chunk": lambda: _play_chunks(case),
    }
    actions = record.actions.numpy()
    for name in peers.available(env.num_envs) if with_peers else []:
        step = stack.enter_context(peers.open_peer(name, env.task.id, env.num_envs, case.threads))
        chosen[name] = lambda step=step: _play_peer(step, actions)
    return chosen


def _timed(act: Callable[[], float | None]) -> tuple[float, float]:
    """Wall and CPU seconds; the wall seconds are what `act` says where it measures itself."""
    cpu, wall = peers.cpu_seconds(), time.perf_counter()
    told = act()
    wall = time.perf_counter() - wall
    return told or wall, peers.cpu_seconds() - cpu


def _play_steps(env: MujocoEnv, record: Recording) -> float:
    env.set_state(record.start)
    start = time.perf_counter()
    for action in record.actions:
        env.step(action)
    return time.perf_counter() - start


def _play_chunks(case: Case) -> float:
    env, record = case.env, case.recording
    env.set_state(record.start)
    chunks = record.actions.unflatten(0, (-1, CHUNK)).transpose(1, 2).contiguous()
    start = time.perf_counter()
    lengths = [env.step_chunk(chunk).length for chunk in chunks]
    seconds = time.perf_counter() - start
    case.executed["chunk"] = int(torch.stack(lengths).sum())
    return seconds


def _play_peer(step: peers.Step, actions: np.ndarray) -> None:
    for action in actions:
        step(action)


def _record(env: MujocoEnv, seconds: float) -> Recording:
    """Random actions for about `seconds`, a whole number of chunks, from environments that have left their start."""
    rng = torch.Generator().manual_seed(0)
    begin = time.perf_counter()
    for action in _actions(env, _WARM_UP, rng):
        env.step(action)
    per_step = (time.perf_counter() - begin) / _WARM_UP
    fitting = _RECORDING_BYTES // env.simulation.state.nbytes
    steps = CHUNK * max(1, int(min(seconds / per_step, fitting, 4000)) // CHUNK)
    actions, start = _actions(env, steps, rng), env.get_state()
    return Recording(start, actions, _states(env, actions))


def _states(env: MujocoEnv, actions: torch.Tensor) -> np.ndarray:
    simulation = env.simulation
    states = np.empty((len(actions), *simulation.state.shape))
    step, counter = simulation.step, iter(range(len(actions)))

    def recorded(ids: np.ndarray | None) -> np.ndarray | None:
        states[next(counter)] = simulation.state
        return step(ids)

    simulation.step = recorded
    for action in actions:
        env.step(action)
    simulation.step = step
    return states


def _actions(env: MujocoEnv, steps: int, rng: torch.Generator) -> torch.Tensor:
    spec = env.robot.action
    low, high = torch.tensor(spec.low), torch.tensor(spec.high)
    return low + (high - low) * torch.rand(steps, env.num_envs, len(low), generator=rng)


def _row(case: Case, name: str, mode: str) -> BenchRow:
    recorded = case.recording.actions.shape[0] * case.env.num_envs
    wall = {k: case.executed.get(k, recorded) / t.wall for k, t in case.timings.items()}
    cpu = {k: case.executed.get(k, recorded) / t.cpu for k, t in case.timings.items()}
    peer_names = [k for k in wall if k not in ("step", "chunk", "limit")]
    detail = {"per_cpu_second": cpu[mode], "cpu_limit_ratio": cpu[mode] / cpu["limit"]}
    detail |= {"limit": wall["limit"], "limit_per_cpu_second": cpu["limit"]}
    detail |= {f"{k}_per_cpu_second": cpu[k] for k in peer_names}
    return BenchRow(
        name=name,
        num_envs=case.env.num_envs,
        value=wall[mode],
        unit="env-steps/s",
        limit_ratio=wall[mode] / wall["limit"],
        peer_ratios={k: wall[mode] / wall[k] for k in peer_names},
        detail=detail,
    )
