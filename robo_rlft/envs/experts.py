"""Scripted experts: controllers that solve a task from its observations, for recording demonstrations.

expert = experts.make(env, seed=0)
obs, _ = env.reset(seed=0)
expert.reset(None)
actions = expert.act(obs)          # [N, A]; after an episode ends in rows `ids`: expert.reset(ids)
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Protocol, cast

from jaxtyping import Float
from torch import Tensor

from robo_rlft.envs.base import BatchEnv, Obs
from robo_rlft.errors import ConfigError


class Expert(Protocol):
    """A batched controller with memory per environment."""

    def reset(self, ids: Sequence[int] | None = None) -> None:
        """A new episode begins in environments `ids` (all by default): draw a new way of doing the task."""

    def act(self, obs: Obs) -> Float[Tensor, "env action"]:
        """The next action of every environment, within the action's bounds."""
        ...


def make(env: BatchEnv, seed: int = 0) -> Expert:
    """The scripted expert of an environment.

    Raises:
        ConfigError: the environment has none.
    """
    name = env.robot.env_id.removeprefix("mjx:")  # the same task on another engine
    if getattr(env, "has_expert", False):
        return SimulatorExpert(cast("HasExpert", env))
    if name not in _MAKERS:
        raise ConfigError(
            f"environment {name} has no scripted expert: those with one are {', '.join(sorted(_MAKERS))}; "
            "record demonstrations from a trained policy instead"
        )
    module, _, attribute = _MAKERS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)(name, env, seed)


class HasExpert(Protocol):
    """A `BatchEnv` whose simulator has an expert."""

    has_expert: bool

    def expert_actions(self) -> Float[Tensor, "env action"]:
        """What it would do now."""
        ...


class SimulatorExpert:
    """The expert inside a simulator's own process, which sees what the policy does not."""

    def __init__(self, env: HasExpert) -> None:
        self.env = env

    def reset(self, ids: Sequence[int] | None = None) -> None:
        """The simulator has begun the episode, and its expert with it."""

    def act(self, obs: Obs) -> Float[Tensor, "env action"]:
        """See `Expert`."""
        return self.env.expert_actions()


_ARM = "robo_rlft.envs.mujoco.tasks.arm.experts:make_expert"
_MAKERS = {"ArmPegInsert": _ARM, "ArmPickPlace": _ARM}
_MAKERS["maniskill:PickCube-v1"] = "robo_rlft.envs.maniskill.expert:make_expert"
_MAKERS |= dict.fromkeys(("genesis:PandaLift", "genesis:PandaReach"), "robo_rlft.envs.genesis.experts:make_expert")
