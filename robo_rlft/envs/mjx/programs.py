"""Compiled programs, kept: a second environment of the same task compiles nothing that the first one did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from robo_rlft.envs.mjx.devices import Place
from robo_rlft.envs.mjx.episodes import Program
from robo_rlft.envs.mjx.model import substituted
from robo_rlft.envs.mujoco.task import MujocoTask, Params


@dataclass(frozen=True)
class _Recipe:
    """What a program depends on; two are equal where all of it is the same."""

    task: MujocoTask = field(compare=False)
    params: Params = field(compare=False)
    physics: Mapping[str, Any] = field(compare=False)
    place: Place = field(compare=False)
    max_steps: int
    key: tuple[Any, ...]


def program_of(task: MujocoTask, params: Params, physics: Mapping[str, Any], max_steps: int, place: Place) -> Program:
    """The program of a task with its parameters, of this process or a new one.

    Raises:
        ConfigError: MJX lacks something that the model or the terms need, or an option of `physics` is unknown.
    """
    # A task is itself and nothing else: its functions cannot be compared.
    key = (id(task), repr(sorted(params.items())), repr(sorted(physics.items())), place.jax, place.dtype)
    return _program(_Recipe(task, params, physics, place, max_steps, key))


@lru_cache(maxsize=16)
def _program(recipe: _Recipe) -> Program:
    model = substituted(recipe.task.model(recipe.params), recipe.physics)
    return Program(recipe.task, recipe.params, model, recipe.max_steps, recipe.place)
