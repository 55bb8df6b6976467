"""Speed of Genesis environments beside a bare loop over Genesis' own `scene.step` on the same scene.

Both begin each round in one state and send the same joint targets. Ours adds the control law, observations, rewards,
terminations and resets, a chunk of steps a call. They take turns, and each keeps its best round.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from robo_rlft import envs
from robo_rlft.envs.genesis.engine import GenesisEnv
from robo_rlft.errors import ConfigError
from robo_rlft.training.bench.peers import cpu_seconds
from robo_rlft.training.bench.rows import BenchRow

CHUNK = 8
"""Control steps per call."""
ROUNDS = 5
SHARE = 0.1
"""Random actions are this share of their bounds, so that robots stay up as they do under a policy."""


def measure(env_id: str, num: int, seconds: float, threads: int) -> list[BenchRow]:
    """One row: environment steps per second in chunks, and the share of the bare loop's.

    Args:
        env_id: `genesis:TASK`.
        num: environments.
        seconds: about how long one round takes.
        threads: of Genesis; 0 takes one.

    Raises:
        ConfigError: another simulator's environment.
    """
    env = envs.make(env_id, num, seed=0, threads=threads)
    if not isinstance(env, GenesisEnv):
        raise ConfigError(f"{env_id} does not run on Genesis: name one of robo-rlft list genesis")
    try:
        return [_compare(env, seconds)]
    finally:
        env.close()


def raw_loop(env: GenesisEnv, targets: list[dict[str, Any]]) -> None:
    """The bare loop: joint targets, then Genesis' step, and nothing else."""
    world = env.world
    for wanted in targets:
        for name, values in wanted.items():
            world.fields[name][:] = values
        world.scene.step(update_visualizer=False)


def _compare(env: GenesisEnv, seconds: float) -> BenchRow:
    chunks = _chunks(env, seconds)
    start = env.get_state()
    targets, executed = _record(env, chunks)
    recorded = len(targets) * env.num_envs
    best: dict[str, tuple[float, float]] = {}
    for _ in range(ROUNDS):
        env.set_state(start)
        _keep(best, "ours", lambda: [env.step_chunk(chunk) for chunk in chunks])
        env.set_state(start)
        _keep(best, "raw", lambda: raw_loop(env, targets))
    ours, raw = best["ours"], best["raw"]
    return BenchRow(
        name=env.robot.env_id,
        num_envs=env.num_envs,
        value=executed / ours[0],
        unit="env-steps/s",
        limit_ratio=executed / recorded * raw[0] / ours[0],
        detail={
            "raw": recorded / raw[0],
            "per_cpu_second": executed / ours[1],
            "raw_per_cpu_second": recorded / raw[1],
            "cpu_limit_ratio": executed / recorded * raw[1] / ours[1],
        },
    )


def _chunks(env: GenesisEnv, seconds: float) -> list[torch.Tensor]:
    """Random chunks for about `seconds`, the environments having left their start."""
    rng = torch.Generator().manual_seed(0)
    spec = env.robot.action
    high = SHARE * torch.tensor(spec.high)

    def draw() -> torch.Tensor:
        unit = 2.0 * torch.rand(env.num_envs, CHUNK, len(high), generator=rng) - 1.0
        return (unit * high).to(env.device)

    env.reset(seed=0)
    env.step_chunk(draw())
    begin = time.perf_counter()
    env.step_chunk(draw())
    count = max(1, round(seconds / (time.perf_counter() - begin)))
    return [draw() for _ in range(count)]


def _record(env: GenesisEnv, chunks: list[torch.Tensor]) -> tuple[list[dict[str, Any]], int]:
    """Joint targets of every control step, and the environment steps that were executed."""
    world, targets = env.world, []
    step = world.step

    def watched() -> Any:
        targets.append({name: env.arrays.copy(world.fields[name]) for name in world.targets})
        return step()

    world.step = watched
    executed = sum(int(env.step_chunk(chunk).length.sum()) for chunk in chunks)
    world.step = step
    return targets, executed


def _keep(best: dict[str, tuple[float, float]], name: str, act: Callable[[], object]) -> None:
    wall, cpu = time.perf_counter(), cpu_seconds()
    act()
    spent = time.perf_counter() - wall, cpu_seconds() - cpu
    least = best.get(name, spent)
    best[name] = min(least[0], spent[0]), min(least[1], spent[1])
