"""Other batched simulators of the same tasks, each as a function from actions to one step of all environments."""

from __future__ import annotations

import importlib.util
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium
import numpy as np
import psutil

Step = Callable[[np.ndarray], object]

ASYNC_LIMIT = 64
"""AsyncVectorEnv starts one process per environment; with more than this many the machine is measured, not it."""
SYNC_LIMIT = 256
"""SyncVectorEnv's cost per environment does not fall beyond this."""


def available(num_envs: int) -> list[str]:
    """Names of the peers that are installed (extra `bench`) and can run this many environments."""
    sizes = {"sync": SYNC_LIMIT, "async": ASYNC_LIMIT, "envpool": num_envs}
    return [name for name, most in sizes.items() if num_envs <= most and _installed(_PACKAGES[name])]


@contextmanager
def open_peer(name: str, env_id: str, num_envs: int, threads: int) -> Iterator[Step]:
    """A running peer, reset, with its resets inside its steps; closed on leaving."""
    env = _MAKERS[name](env_id, num_envs, threads)
    env.reset(seed=0) if name != "envpool" else env.reset()
    try:
        yield env.step
    finally:
        env.close()


def cpu_seconds() -> float:
    """CPU time of this process so far, all threads, and of its children."""
    children = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return time.process_time() + sum(t.user + t.system for t in children)


def _envpool(env_id: str, num_envs: int, threads: int) -> Any:
    import envpool

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return envpool.make_gymnasium(f"{env_id}-v5", num_envs=num_envs, num_threads=min(threads, num_envs), seed=0)


def _sync(env_id: str, num_envs: int, threads: int) -> gymnasium.vector.VectorEnv:
    return gymnasium.vector.SyncVectorEnv([lambda: _single(env_id)] * num_envs)


def _async(env_id: str, num_envs: int, threads: int) -> gymnasium.vector.VectorEnv:
    return gymnasium.vector.AsyncVectorEnv([lambda: _single(env_id)] * num_envs)


def _single(env_id: str) -> gymnasium.Env:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return gymnasium.make(f"{env_id}-v5", disable_env_checker=True)


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


# Gymnasium's MuJoCo tasks import imageio for their viewer.
_PACKAGES = {"sync": "imageio", "async": "imageio", "envpool": "envpool"}
_MAKERS: dict[str, Callable[[str, int, int], Any]] = {
    "envpool": _envpool,
    "sync": _sync,
    "async": _async,
}
