"""`mjx:TASK`: every registered MuJoCo task, the user's own included, on JAX."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from robo_rlft.envs import registry
from robo_rlft.envs.mujoco.task import MujocoTask
from robo_rlft.errors import ConfigError, MissingExtraError, unknown_name

if TYPE_CHECKING:
    from robo_rlft.envs.mjx.engine import MjxEnv


def make_env(
    task: str,
    num_envs: int = 1,
    *,
    seed: int | None = None,
    device: str | torch.device = "cpu",
    threads: int = 0,
    dtype: torch.dtype = torch.float32,
    **params: Any,
) -> MjxEnv:
    """N environments of a registered MuJoCo task; see `engine.MjxEnv` for the arguments.

    Raises:
        ConfigError: no such MuJoCo task, or MJX lacks something it needs.
        MissingExtraError: JAX or MJX is not installed.
    """
    for package in ("jax", "mujoco.mjx"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "mjx", f"environment mjx:{task}")
    from robo_rlft.envs.mjx.engine import MjxEnv

    return MjxEnv(find_task(task), num_envs, seed=seed, device=device, threads=threads, dtype=dtype, **params)


def tasks() -> Sequence[str]:
    """Names of all registered MuJoCo tasks."""
    return sorted(_found())


def find_task(name: str) -> MujocoTask:
    """The table of a registered MuJoCo task.

    Raises:
        ConfigError: there is none of that name.
    """
    entry = next((e for e in registry.entries() if e.id == name), None)
    found = entry.load() if entry is not None and entry.installed else None
    if isinstance(found, MujocoTask):
        return found
    if entry is not None:
        raise ConfigError(f"mjx:{name}: {name} is no MuJoCo task; those are {', '.join(tasks())}")
    raise ConfigError(unknown_name("MuJoCo task", name, tasks()))


def _found() -> dict[str, MujocoTask]:
    loaded = {entry.id: entry.load() for entry in registry.entries() if entry.installed}
    return {name: task for name, task in loaded.items() if isinstance(task, MujocoTask)}
