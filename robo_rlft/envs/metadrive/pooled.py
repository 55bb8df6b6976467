"""MetaDrive's worlds as batches: a process for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from robo_rlft.envs.base import BatchEnv
from robo_rlft.envs.images import ImagesConfig
from robo_rlft.envs.metadrive.rows import AgentRows
from robo_rlft.envs.metadrive.tasks import CAR_ACTION, Task
from robo_rlft.envs.pool.env import PoolEnv
from robo_rlft.envs.pool.single import SingleEnv
from robo_rlft.errors import ConfigError

PRELOAD = ("robo_rlft.envs.metadrive.preload",)
"""What workers share the memory of."""
CANNOT = {"state_comes_back": "MetaDrive's states drift when they are restored; running worlds are forked exactly"}


@dataclass(frozen=True)
class MakeCar:
    """Makes a `Drive`, in the worker that it is sent to."""

    task: str
    params: Mapping[str, Any]
    cameras: tuple[str, ...]
    size: tuple[int, ...]

    def __call__(self) -> SingleEnv:
        """Imports MetaDrive."""
        from robo_rlft.envs.metadrive.drive import Drive

        return Drive(self.task, self.params, self.cameras, self.size)


def pool_of_cars(task: Task, params: Mapping[str, Any], num_envs: int, images: ImagesConfig, **common: Any) -> PoolEnv:
    """One car in each world.

    Args:
        task: which driving.
        params: settled.
        num_envs: cars.
        images: top-down images to observe.
        common: `seed`, `device`, `threads` and `dtype` of `PoolEnv`.
    """
    make = MakeCar(task.name, params, tuple(images.cameras), tuple(images.size))
    settings = {"one_per_process": True, "cannot": CANNOT, "preload": PRELOAD}
    return PoolEnv(make, num_envs, env_id=f"metadrive:{task.name}", **settings, **common)


@dataclass(frozen=True)
class MakeWorld:
    """Makes a `JointWorld`, in the worker that it is sent to."""

    task: str
    params: Mapping[str, Any]

    def __call__(self) -> SingleEnv:
        """Imports MetaDrive."""
        from robo_rlft.envs.metadrive.joint import JointWorld

        return JointWorld(self.task, self.params)


def worlds_of_agents(
    task: Task, params: Mapping[str, Any], num_envs: int, *, seed: int | None, **common: Any
) -> BatchEnv:
    """Worlds with several cars each, one car per row.

    Args:
        task: which driving.
        params: settled.
        num_envs: cars in all.
        seed: of the first row.
        common: `device`, `threads` and `dtype` of `PoolEnv`.

    Raises:
        ConfigError: worlds without cars.
    """
    agents = int(params["num_agents"])
    if agents < 1 or num_envs < 1:
        raise ConfigError(f"num_agents={agents} and num_envs={num_envs}: a world has cars, and some are learned")
    make, worlds = MakeWorld(task.name, params), -(-num_envs // agents)
    settings = {"one_per_process": True, "preload": PRELOAD}
    pool = PoolEnv(make, worlds, env_id=f"metadrive:{task.name}", seed=seed, **settings, **common)
    return AgentRows(pool, num_envs, int(params["max_episode_steps"]), CAR_ACTION)
