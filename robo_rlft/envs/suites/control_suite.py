"""The DeepMind Control Suite: `dm_control:DOMAIN-TASK`, for example `dm_control:cheetah-run`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import mujoco
import numpy as np
import torch
from jaxtyping import Float

from robo_rlft.envs.base import BatchEnv
from robo_rlft.envs.images import ImagesConfig
from robo_rlft.envs.pool.env import PoolEnv
from robo_rlft.envs.pool.single import Frame, Outcome
from robo_rlft.envs.suites.pictures import cameras_of
from robo_rlft.envs.suites.quiet import quiet
from robo_rlft.envs.suites.simulated import SimulatedEnv, entry_names
from robo_rlft.errors import ConfigError, unknown_name
from robo_rlft.spec import ArraySpec, RobotSpec


def make_env(
    task: str,
    num_envs: int,
    *,
    seed: int | None,
    device: str | torch.device,
    threads: int,
    dtype: torch.dtype,
    images: ImagesConfig | None = None,
    workers: int | None = None,
    time_limit: float = 0.0,
    **params: Any,
) -> BatchEnv:
    """N copies of a task of the Control Suite.

    Args:
        task: domain and task with a hyphen between, as in `cheetah-run`.
        num_envs: see `envs.make`, as `seed`, `device`, `threads`, `dtype` and `images`.
        seed: as there.
        device: as there.
        threads: as there.
        dtype: as there.
        images: as there.
        workers: processes that share the environments; 0 steps them in this one, None chooses.
        time_limit: seconds of an episode; 0: the task's own.
        params: further arguments of the task.
    """
    env_id = f"dm_control:{task}"
    make = partial(ControlSuiteEnv, task, env_id, images, time_limit=time_limit, **params)
    pool = {"seed": seed, "device": device, "threads": threads, "dtype": dtype, "workers": workers}
    return PoolEnv(make, num_envs, env_id=env_id, **pool)


def tasks() -> Sequence[str]:
    """All tasks, as `domain-task`."""
    return sorted(f"{domain}-{task}" for domain, task in _suite().ALL_TASKS)


class ControlSuiteEnv(SimulatedEnv):
    """One task of the Control Suite.

    Args:
        task: as in `make_env`.
        env_id: what the environment is called here.
        images: see `make_env`, as `time_limit` and `params`.
        time_limit: as there.
        params: as there.

    Raises:
        ConfigError: there is no such task, or it does not take these arguments.
    """

    def __init__(
        self, task: str, env_id: str, images: ImagesConfig | None = None, *, time_limit: float = 0.0, **params: Any
    ) -> None:
        self.env = _loaded(task, env_id, time_limit, params)
        _never_draws(self.env.physics)
        first = self.env.reset().observation
        super().__init__(images, env_id)
        self.default_camera = next(iter(cameras_of(self.physics[0])), None)
        action = self.env.action_spec()
        names = [self.physics[0].actuator(i).name or f"action[{i}]" for i in range(action.shape[0])]
        self.robot = RobotSpec(
            env_id=env_id,
            observation=self.observation([n for k, v in first.items() for n in entry_names(k, np.size(v))]),
            action=ArraySpec(
                action.shape,
                names=tuple(names),
                low=tuple(action.minimum.tolist()),
                high=tuple(action.maximum.tolist()),
            ),
            rate_hz=1.0 / self.env.control_timestep(),
            max_episode_steps=_limit(self.env, env_id),
            task={"time_limit": time_limit, **params} if time_limit else dict(params),
        )
        self.reset(0, 0)

    @property
    def physics(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        """The simulation."""
        return self.env.physics.model.ptr, self.env.physics.data.ptr

    @property
    def parts(self) -> Sequence[Any]:
        """The environment, with its task."""
        return (self.env,)

    @property
    def constant(self) -> Sequence[type]:
        """`Physics` holds views of the simulation alone."""
        from dm_control.mujoco import Physics

        return (Physics,)

    def reset(self, seed: int, variant: int) -> None:
        """See `SingleEnv.reset`."""
        self.env.task.random.seed(seed)
        self._vector = _flat(self.env.reset().observation)

    def step(self, action: Float[np.ndarray, " action"]) -> Outcome:
        """See `SingleEnv.step`. An end with discount 1 is a time limit's, one with less the task's own."""
        seen = self.env.step(action)
        self._vector = _flat(seen.observation)
        return Outcome(
            float(seen.reward),
            terminated=bool(seen.last() and seen.discount < 1.0),
            truncated=bool(seen.last() and seen.discount == 1.0),
        )

    def set_state(self, state: Frame) -> None:
        """See `SingleEnv.set_state`."""
        super().set_state(state)
        mujoco.mj_step1(*self.physics)  # dm_control steps end with this first half of the next one


def _loaded(task: str, env_id: str, time_limit: float, params: Mapping[str, Any]) -> Any:
    suite = _suite()
    domain, _, name = task.rpartition("-")
    if (domain, name) not in suite.ALL_TASKS:
        raise ConfigError(unknown_name("task", task, tasks()))
    kwargs = {"random": 0, **params, **({"time_limit": time_limit} if time_limit else {})}
    try:
        with quiet():
            return suite.load(domain, name, task_kwargs=kwargs)
    except TypeError as error:
        raise ConfigError(f"environment {env_id} does not take these parameters: {error}") from error


def _suite() -> Any:
    with quiet():
        from dm_control import suite
    return suite


def _limit(env: Any, env_id: str) -> int:
    if math.isinf(env._step_limit):
        raise ConfigError(f"environment {env_id} has no time limit: set env.params.time_limit, in seconds")
    return math.ceil(env._step_limit - 1e-6)


def _never_draws(physics: Any) -> None:
    """quadruped-escape opens OpenGL in every reset, to draw its new ground; `Pictures` draws here, when asked to."""
    physics.__class__ = type(type(physics).__name__, (type(physics),), {"contexts": None})


def _flat(observation: Mapping[str, Any]) -> Float[np.ndarray, " obs"]:
    return np.concatenate([np.ravel(value) for value in observation.values()]).astype(np.float64)
