"""Compiled programs, kept: a second environment of the same task compiles nothing that the first one did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from robo_rlft.envs.mjx.devices import Place
from robo_rlft.envs.mjx.episodes import Program
from robo_rlft.envs.mjx.model import substituted
from robo_rlft.envs.mujoco.task import MujocoTask, Params
from robo_rlft.envs.mujoco.variants import Variants
from robo_rlft.errors import ConfigError


@dataclass(frozen=True)
class Recipe:
    """What a program depends on.

    Attributes:
        task: the task's table.
        params: all of its parameters.
        variants: all parameters of each variant, by its name; empty for the one that `params` say.
        physics: options in place of the model's own.
        max_steps: control steps before truncation.
        place: device and precision.
    """

    task: MujocoTask
    params: Params
    variants: Mapping[str, Params]
    physics: Mapping[str, Any]
    max_steps: int
    place: Place


def program_of(recipe: Recipe) -> Program:
    """The program of a recipe, of this process or a new one.

    Raises:
        ConfigError: MJX lacks something that the model or the terms need, an option of `physics` is unknown, or the
            models of variants differ.
    """
    told = [repr(sorted(values.items())) for values in (recipe.params, recipe.variants, recipe.physics)]
    # A task is itself and nothing else: its functions cannot be compared.
    key = (id(recipe.task), *told, recipe.max_steps, recipe.place.jax, recipe.place.dtype)
    return _program(_Keyed(recipe, key))


@dataclass(frozen=True)
class _Keyed:
    recipe: Recipe = field(compare=False)
    key: tuple[Any, ...]


@lru_cache(maxsize=16)
def _program(keyed: _Keyed) -> Program:
    recipe = keyed.recipe
    task = replace(recipe.task, model=lambda params: substituted(recipe.task.model(params), recipe.physics))
    if not recipe.variants:
        return Program(task, recipe.params, task.model(recipe.params), recipe.max_steps, recipe.place)
    variants = Variants(task, recipe.variants)
    if variants.fields:
        raise ConfigError(
            f"the variants of {task.id} differ in {', '.join(list(variants.fields)[:3])} of their models, and on MJX "
            "all environments share one model: choose one with variants={} and its parameters, or run it on the CPU"
        )
    return Program(task, recipe.params, variants.models[0], recipe.max_steps, recipe.place, variants)
