"""Genesis (extra `genesis`): tasks of our own on the robots it ships, many at a time on the CPU or a GPU."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from robo_rlft.errors import ConfigError, unknown_name

if TYPE_CHECKING:
    from robo_rlft.envs.base import BatchEnv
    from robo_rlft.envs.randomise import RandomiseConfig

_TASKS = {
    "Go2Flat": "robo_rlft.envs.genesis.tasks.go2:FLAT",
    "Go2Rough": "robo_rlft.envs.genesis.tasks.go2:ROUGH",
    "PandaReach": "robo_rlft.envs.genesis.tasks.panda:REACH",
    "PandaLift": "robo_rlft.envs.genesis.tasks.panda:LIFT",
}


def tasks() -> Sequence[str]:
    """Names of the tasks."""
    return sorted(_TASKS)


def make_env(task: str, num_envs: int = 1, *, randomise: RandomiseConfig | None = None, **settings: Any) -> BatchEnv:
    """N environments of one task; see `GenesisEnv` for the settings.

    Raises:
        ConfigError: there is no such task or parameter.
    """
    from robo_rlft.envs.genesis.engine import GenesisEnv

    if task not in _TASKS:
        raise ConfigError(unknown_name("task of Genesis", task, _TASKS))
    module, _, attribute = _TASKS[task].partition(":")
    return GenesisEnv(getattr(importlib.import_module(module), attribute), num_envs, randomise=randomise, **settings)
