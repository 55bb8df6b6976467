"""Speed of the MuJoCo tasks on JAX beside the CPU engine: whole chunks of random actions, resets included.

The first call compiles and is timed apart. Each round then plays the same chunks on both; the best round counts.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from robo_rlft.envs import make, registry
from robo_rlft.envs.base import BatchEnv
from robo_rlft.envs.mujoco.task import MujocoTask
from robo_rlft.errors import ConfigError
from robo_rlft.training.bench.rows import BenchRow, print_table, write_json

CHUNK = 8
"""Control steps per call."""
ROUNDS = 3
TASKS = ("Hopper", "Ant", "Humanoid", "QuadrupedFlat", "ArmPickPlace")
"""Those of them that this installation knows are measured."""
SIZES = {"cuda": (256, 1024, 4096, 16384), "cpu": (64,)}
"""Batch sizes by device; a CPU only shows that it runs."""
SUBSTITUTES: Mapping[str, Mapping[str, Any]] = {"Humanoid": {"solver": "Newton"}}
"""Options in place of those that MJX lacks."""


def run(
    json_path: str | None = None,
    envs: Sequence[str] = (),
    num_envs: Sequence[int] = (),
    seconds: float = 2.0,
    threads: int = 0,
    device: str = "cpu",
    physics: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Measure, print a table and return one row per case.

    Args:
        json_path: file to write the rows to, or None.
        envs: MuJoCo tasks, with or without `mjx:` before the name; none takes `TASKS`.
        num_envs: batch sizes; none takes those of `SIZES`.
        seconds: about how long one round takes at least.
        threads: of the CPU engine; 0 takes all CPUs.
        device: of the engine on JAX.
        physics: options of the models to replace, over `SUBSTITUTES`.

    Raises:
        ConfigError: no such task, or MJX lacks something it needs.
    """
    tasks = [name.removeprefix("mjx:") for name in envs] or known_tasks()
    sizes = num_envs or SIZES[torch.device(device).type]
    rows = [measure(task, n, seconds, threads, device, physics or {}) for task in tasks for n in sizes]
    print_table(rows, f"environment steps per second, chunks of {CHUNK}, JAX on {device} beside the CPU engine")
    return write_json(rows, json_path) if json_path else [vars(row) for row in rows]


def known_tasks() -> list[str]:
    """The tasks of `TASKS` that are registered."""
    return [entry.id for name in TASKS for entry in registry.entries() if entry.id == name]


def measure(task: str, num: int, seconds: float, threads: int, device: str, physics: Mapping[str, Any]) -> BenchRow:
    """One task at one batch size."""
    options = {**SUBSTITUTES.get(task, {}), **physics}
    env = make(f"mjx:{task}", num, seed=0, device=device, threads=threads, physics=options)
    cpu = make(task, num, seed=0, threads=threads)
    if not isinstance(getattr(cpu, "task", None), MujocoTask):
        raise ConfigError(f"bench mjx measures MuJoCo tasks, and {task} is none: choose another")
    chunks = _chunks(env)
    first = _play(env, chunks[:1])[1]
    again = _play(env, chunks[:1])[1]
    repeats = max(1, round(seconds / max(again, 1e-3)))
    best = {"jax": 0.0, "cpu": 0.0}
    for _ in range(ROUNDS):
        for name, one in (("jax", env), ("cpu", cpu)):
            steps, spent = _play(one, [chunks[k % len(chunks)] for k in range(repeats)])
            best[name] = max(best[name], steps / spent)
    env.close()
    cpu.close()
    return BenchRow(
        name=f"{task}/{device}",
        num_envs=num,
        value=best["jax"],
        unit="env-steps/s",
        peer_ratios={"CPU engine": best["jax"] / best["cpu"]},
        detail={"first_call_seconds": first, "cpu_engine": best["cpu"]},
    )


def _chunks(env: BatchEnv, count: int = 8) -> list[torch.Tensor]:
    spec, rng = env.robot.action, torch.Generator().manual_seed(0)
    low, high = torch.tensor(spec.low), torch.tensor(spec.high)
    draws = torch.rand(count, env.num_envs, CHUNK, len(spec.low), generator=rng)
    return list((low + (high - low) * draws).to(env.device))


def _play(env: BatchEnv, chunks: Sequence[torch.Tensor]) -> tuple[int, float]:
    """Executed steps and wall seconds, from the first call to the last result's arrival."""
    start = time.perf_counter()
    lengths = [env.step_chunk(chunk.to(env.device)).length for chunk in chunks]
    steps = int(torch.stack(lengths).sum())
    return steps, time.perf_counter() - start
