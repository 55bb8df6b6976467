"""Variants of a task: the same task with other parameters, one for each environment and episode.

A parameter may be read by the task's `reset`, by its terms, and by its `model`. What differs between the variants'
models becomes values per environment; their sizes, names and assets must be the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import mujoco
import numpy as np
from jaxtyping import Float, Int
from mujoco.batch import MODEL_FIELDS

from robo_rlft.envs.mujoco.task import MujocoTask, Params
from robo_rlft.errors import ConfigError

INDEX = "variant"
"""The task variable that says which variant an environment's present episode is."""
_STATE = int(mujoco.mjtState.mjSTATE_INTEGRATION)


class Variants:
    """The variants of one task.

    Args:
        task: the task.
        params: all parameters of each variant, by its name.

    Attributes:
        names: of the variants.
        params: theirs, in that order.
        models: theirs; one and the same where the parameters do not reach the model.
        fields: model fields that differ, one row per variant.
        common: parameters that are the same for all.
        defaults: the physics state that each variant's model starts with, one row per variant.

    Raises:
        ConfigError: models that differ in more than values of fields.
    """

    def __init__(self, task: MujocoTask, params: Mapping[str, Params]) -> None:
        self.names, self.params = tuple(params), tuple(params.values())
        self._id = task.id
        self.models = self._shared([task.model(p) for p in self.params])
        self.fields = {name: np.stack([_value(m, name) for m in self.models]) for name in self._differing()}
        self.defaults = np.stack([_start(model) for model in self.models])
        shared, self._varying = dict(self.params[0]), {}
        for name, values in {n: [p[n] for p in self.params] for n in shared}.items():
            if any(value != values[0] for value in values):
                del shared[name]
                if not isinstance(values[0], str | list | tuple):
                    self._varying[name] = np.array(values)
        self.common = shared

    def rows(self, variant: Int[np.ndarray, " row"]) -> Params:
        """What terms read: numbers that differ between the variants as arrays, [row]; the others as they are."""
        return _Params(self._id, {**self.common, **{n: v[variant] for n, v in self._varying.items()}})

    def values(self, variant: Int[np.ndarray, " row"]) -> dict[str, np.ndarray]:
        """Rows of the model fields that differ."""
        return {name: values[variant] for name, values in self.fields.items()}

    def _shared(self, models: list[mujoco.MjModel]) -> tuple[mujoco.MjModel, ...]:
        first = models[0]
        return tuple(first if not any(_differences(first, model)) else model for model in models)

    def _differing(self) -> list[str]:
        names = dict.fromkeys(name for model in self.models for name in _differences(self.models[0], model))
        fixed = [name for name in names if name not in MODEL_FIELDS or name == "opt.timestep"]
        if fixed:
            raise ConfigError(
                f"the variants of {self._id} differ in {', '.join(fixed[:3])} of their models, which all environments "
                "share: vary only what leaves the model's sizes, assets and time step alone"
            )
        return list(names)


class _Params(dict[str, Any]):
    """Parameters of several variants at once."""

    def __init__(self, task: str, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self._task = task

    def __missing__(self, name: str) -> Any:
        raise ConfigError(
            f"parameter {name} of {self._task} cannot differ between variants: a term of the task reads it, and terms "
            "take other numbers from environment to environment, but no other lists or words"
        )


def _differences(first: mujoco.MjModel, other: mujoco.MjModel) -> Iterator[str]:
    """Names of the fields in which two models differ."""
    if first is not other:
        yield from (name for name in _names(first) if not np.array_equal(_value(first, name), _value(other, name)))


def _names(model: mujoco.MjModel) -> list[str]:
    own = [n for n in dir(model) if not n.startswith("_") and isinstance(getattr(model, n), np.ndarray | int | bytes)]
    return own + [name for name in MODEL_FIELDS if name.startswith("opt.")]


def _value(model: mujoco.MjModel, name: str) -> np.ndarray:
    return np.asarray(getattr(model.opt, name[4:]) if name.startswith("opt.") else getattr(model, name))


def _start(model: mujoco.MjModel) -> Float[np.ndarray, " state"]:
    data = mujoco.MjData(model)
    row = np.empty(mujoco.mj_stateSize(model, _STATE))
    mujoco.mj_getState(model, data, row, _STATE)
    return row
