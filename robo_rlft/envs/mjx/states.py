"""Saved states: the rows of the CPU engine, copied from the device and put back."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from robo_rlft.envs.base import EnvState
from robo_rlft.envs.mjx.devices import Place
from robo_rlft.envs.mjx.episodes import Episodes
from robo_rlft.envs.mjx.starts import Ids, Starts
from robo_rlft.envs.mujoco.episodes import NEXT
from robo_rlft.envs.mujoco.variants import INDEX
from robo_rlft.errors import SpecError

_WIDE = {"f": np.float64, "i": np.int64}
"""Types of the CPU engine by kind."""


def saved(episodes: Episodes, starts: Starts, ids: Ids) -> EnvState:
    """Everything that decides the future of environments `ids`, one row each."""
    rows = {name: np.asarray(values)[ids] for name, values in _leaves(episodes).items()}
    rows = {name: v.astype(_WIDE.get(v.dtype.kind, v.dtype)) for name, v in rows.items()}
    if INDEX in episodes.variables:
        rows[NEXT] = starts.next_variant[ids]
    return rows | {"generator": starts.save(np.asarray(episodes.used), ids)}


def loaded(task_id: str, episodes: Episodes, starts: Starts, state: EnvState, ids: Ids, place: Place) -> Episodes:
    """The episodes with saved rows put into environments `ids`; their observations are those of before.

    Raises:
        SpecError: rows are missing, or belong to another task.
    """
    leaves = {name: np.array(values) for name, values in _leaves(episodes).items()}
    wanted = {name: (len(ids), *values.shape[1:]) for name, values in leaves.items()} | {"generator": (len(ids), 6)}
    if INDEX in episodes.variables:
        wanted[NEXT] = (len(ids),)
    for name, shape in wanted.items():
        found = np.shape(state[name]) if name in state else "nothing"
        if found != shape:
            raise SpecError(
                f"the saved state has {found} for '{name}' where mjx:{task_id} needs {shape}: "
                "give one row per environment, saved from the same task"
            )
    for name, values in leaves.items():
        values[ids] = state[name]
    if INDEX in episodes.variables:
        starts.next_variant[ids] = state[NEXT]
    starts.load(state["generator"], np.asarray(episodes.used), ids)
    placed = {name: place.put(values) for name, values in leaves.items()}
    return episodes._replace(
        rows=placed["physics"],
        outputs={name: placed[f"output/{name}"] for name in episodes.outputs},
        variables={name: placed[f"variable/{name}"] for name in episodes.variables},
        elapsed=placed["elapsed"],
        success=placed["success"],
    )


def _leaves(episodes: Episodes) -> dict[str, jax.Array | Any]:
    """The arrays of a state by the names that the CPU engine gives them."""
    return (
        {"physics": episodes.rows}
        | {f"output/{name}": values for name, values in episodes.outputs.items()}
        | {f"variable/{name}": values for name, values in episodes.variables.items()}
        | {"elapsed": episodes.elapsed, "success": episodes.success}
    )
