"""Evaluates a Genesis task's table (observations, rewards, terminations) over a batch, in numpy or torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from robo_rlft.envs.genesis.arrays import Array, Arrays
from robo_rlft.envs.genesis.task import GenesisTask, Params, State
from robo_rlft.errors import ConfigError
from robo_rlft.spec import ArraySpec

Groups = dict[str, Array]
"""Observation groups, [N, width]."""


class Table:
    """The table of one task with its parameters filled in.

    Args:
        task: the table.
        params: all of its parameters.
        arrays: the library of the terms.
    """

    def __init__(self, task: GenesisTask, params: Params, arrays: Arrays) -> None:
        self._task, self._params, self._arrays = task, params, arrays
        self._groups = {
            group: [o for o in task.observations if o.group == group]
            for group in dict.fromkeys(o.group for o in task.observations)
        }

    def observe(self, state: State) -> Groups:
        """Observation groups, with memory of their own."""
        xp, params = self._arrays.xp, self._params
        return {
            group: self._arrays.number(xp.concatenate([o.fn(xp, state, params) for o in terms], -1))
            for group, terms in self._groups.items()
        }

    def reward_terms(self, state: State, action: Array) -> dict[str, Array]:
        """Each reward term with its weight, [N]."""
        return {r.name: r.weight * r.fn(self._arrays.xp, state, action, self._params) for r in self._task.rewards}

    def reward(self, state: State, action: Array) -> Array:
        """Sum of the weighted terms, [N]."""
        first, *others = self.reward_terms(state, action).values()
        return self._arrays.number(sum(others, first))

    def metrics(self, state: State) -> dict[str, Array]:
        """The task's figures of the episodes so far, [N] each."""
        xp, params = self._arrays.xp, self._params
        return {name: self._arrays.number(fn(xp, state, params)) for name, fn in self._task.metrics.items()}

    def condition(self, fn: Callable[..., Array] | None, state: State, num: int) -> Array:
        """A condition, bool [N]; False where the task has none."""
        return self._arrays.full((num,), False) if fn is None else fn(self._arrays.xp, state, self._params)

    def check(self, state: State, action: Array) -> None:
        """Call every term once.

        Raises:
            ConfigError: naming the first that reads a field there is not, or has the wrong shape.
        """
        task, params, rows = self._task, self._params, len(action)
        for o in task.observations:
            self._try(f"observation '{o.name}'", (rows, len(o.names)), o.fn, state, params)
        for r in task.rewards:
            self._try(f"reward '{r.name}'", (rows,), r.fn, state, action, params)
        for label in ("terminated", "success"):
            if (fn := getattr(task, label)) is not None:
                self._try(f"condition '{label}'", (rows,), fn, state, params)
        for name, fn in task.metrics.items():
            self._try(f"metric '{name}'", (rows,), fn, state, params)

    def _try(self, what: str, shape: tuple[int, ...], fn: Callable[..., Any], *arguments: Any) -> None:
        try:
            found = tuple(fn(self._arrays.xp, *arguments).shape)
        except KeyError as error:
            raise ConfigError(
                f"task {self._task.id}: {what} reads {error}, which is no field, variable or parameter"
            ) from error
        if found != shape:
            raise ConfigError(
                f"task {self._task.id}: {what} returned shape {found} for {shape[0]} environments, expected {shape} "
                "(environment first, one column per name)"
            )


def observation_specs(task: GenesisTask, dtype: str, params: Params) -> dict[str, ArraySpec]:
    """What each observation group holds, from the names and units of its terms."""
    specs = {}
    for group in dict.fromkeys(o.group for o in task.observations):
        terms = [o for o in task.observations if o.group == group]
        names = tuple(name for o in terms for name in o.names)
        units = tuple(unit for o in terms for unit in (o.units or ("",) * len(o.names)))
        made_of = tuple(o.term(params) for o in terms)
        specs[group] = ArraySpec((len(names),), dtype, names=names, units=units, terms=made_of)
    return specs
