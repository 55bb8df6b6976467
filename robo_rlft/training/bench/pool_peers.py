"""Other ways to step environments that come one at a time, each as a function from actions to one step of all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode

from robo_rlft.training.bench.peers import Step


@contextmanager
def open_async(task: str, num_envs: int) -> Iterator[Step]:
    """Gymnasium's AsyncVectorEnv with shared memory: a process for each environment, resets within its steps."""
    make = partial(gymnasium.make, task, disable_env_checker=True)
    env = AsyncVectorEnv([make] * num_envs, shared_memory=True, autoreset_mode=AutoresetMode.SAME_STEP)
    env.reset(seed=0)
    try:
        yield env.step
    finally:
        env.close()


@contextmanager
def open_libero(task: str) -> Iterator[Step]:
    """LIBERO's own environment without images, alone in this process, set back where an episode ends."""
    from robo_rlft.envs.suites.libero_tasks import chosen, suite
    from robo_rlft.envs.suites.quiet import quiet

    name, (number,) = chosen(task)
    entry = suite(name)[number]
    with quiet():
        from libero.libero.envs.env_wrapper import ControlEnv

        env = ControlEnv(
            bddl_file_name=str(entry.problem), use_camera_obs=False, has_offscreen_renderer=False, ignore_done=True
        )
        env.reset()
    start = entry.states()[0]
    env.set_init_state(start)

    def step(actions: np.ndarray) -> Any:
        *_, done, _ = env.step(actions[0])
        return env.set_init_state(start) if done else None

    try:
        yield step
    finally:
        env.close()
