"""Speed of MetaDrive's worlds here and in Gymnasium's `AsyncVectorEnv` with shared memory, as many processes each.

    python -m robo_rlft.training.bench.metadrive_peer --num-envs 4

Both drive the same kind of roads with the same random actions, resets included, and take turns in each round; each
keeps its best. CPU seconds count the workers' too: they tell more than wall time on a machine that does other things.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
import torch

from robo_rlft import envs
from robo_rlft.training.bench.envs import Timing
from robo_rlft.training.bench.peers import cpu_seconds
from robo_rlft.training.bench.rows import BenchRow, print_table, write_json

ROUNDS = 3
CHUNK = 4
_SETTINGS = {"map": 3, "traffic_density": 0.1, "num_scenarios": 1000}


class GymnasiumCar(gymnasium.Env):
    """MetaDrive's own environment, with the `reset` that Gymnasium calls."""

    def __init__(self) -> None:
        # Without its download of assets, as here; the import also silences it.
        from metadrive.envs.metadrive_env import MetaDriveEnv

        from robo_rlft.envs.metadrive.world import QUIET

        self._env: Any = MetaDriveEnv({**_SETTINGS, **QUIET, "horizon": 1000})
        self.observation_space, self.action_space = self._env.observation_space, self._env.action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """MetaDrive's."""
        return self._env.reset(seed=seed)[0], {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """MetaDrive's; its information, an object in Python, would only cost the peer time."""
        obs, reward, terminated, truncated, _ = self._env.step(action)
        return obs, reward, terminated, truncated, {}

    def close(self) -> None:
        """MetaDrive's."""
        self._env.close()


def run(json_path: str | None = None, num_envs: Sequence[int] = (1, 4), steps: int = 200) -> list[dict[str, Any]]:
    """Measure, print a table and return one row per case.

    Args:
        json_path: file to write the rows to, or None.
        num_envs: processes of both.
        steps: control steps of one round, a multiple of `CHUNK`.
    """
    rows = [row for num in num_envs for row in _measure(num, steps)]
    print_table(rows, "environment steps per second, MetaDrive")
    return write_json(rows, json_path) if json_path else [vars(row) for row in rows]


def _measure(num: int, steps: int) -> list[BenchRow]:
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (steps, num, 2)) * np.array([0.1, 0.3]) + np.array([0.0, 0.4])
    ours = envs.make("metadrive:Procedural", num, seed=0, **_SETTINGS)
    peer = gymnasium.vector.AsyncVectorEnv([GymnasiumCar] * num, context="forkserver")
    timings = {name: Timing() for name in ("step", "chunk", "async")}
    try:
        ours.reset(seed=0)
        peer.reset(seed=list(range(num)))
        for _ in range(ROUNDS):
            _keep(timings["step"], lambda: _steps(ours, actions))
            _keep(timings["chunk"], lambda: _chunks(ours, actions))
            _keep(timings["async"], lambda: [peer.step(a) for a in actions])
    finally:
        ours.close()
        peer.close()
    return [_row(name, num, steps * num, timings) for name in ("step", "chunk")]


def _keep(timing: Timing, act: Callable[[], object]) -> None:
    cpu, wall = cpu_seconds(), time.perf_counter()
    act()
    timing.keep(time.perf_counter() - wall, cpu_seconds() - cpu)


def _steps(env: envs.BatchEnv, actions: np.ndarray) -> None:
    for action in torch.from_numpy(actions).float():
        env.step(action)


def _chunks(env: envs.BatchEnv, actions: np.ndarray) -> None:
    for chunk in torch.from_numpy(actions).float().unflatten(0, (-1, CHUNK)).transpose(1, 2):
        env.step_chunk(chunk)


def _row(name: str, num: int, count: int, timings: dict[str, Timing]) -> BenchRow:
    ours, peer = timings[name], timings["async"]
    detail = {"per_cpu_second": count / ours.cpu, "async_per_cpu_second": count / peer.cpu}
    return BenchRow(
        name=f"metadrive:Procedural/{name}",
        num_envs=num,
        value=count / ours.wall,
        unit="env-steps/s",
        peer_ratios={"async": peer.wall / ours.wall},
        detail=detail,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line of this module."""
    parser = argparse.ArgumentParser(description="MetaDrive here and in Gymnasium's AsyncVectorEnv")
    parser.add_argument("--num-envs", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--json")
    given = parser.parse_args(arguments)
    run(given.json, given.num_envs, given.steps)


if __name__ == "__main__":
    main()
