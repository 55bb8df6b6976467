"""Evaluates a task's table (observations, rewards, terminations) over a batch of environments with numpy.

The engine calls it once per control step, or once per chunk with the chunk's steps as further rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from robo_rlft.envs.mujoco.task import MujocoTask, Observation, Params, Reward, State
from robo_rlft.envs.mujoco.variants import INDEX, Variants
from robo_rlft.errors import ConfigError
from robo_rlft.spec import ArraySpec

Groups = dict[str, np.ndarray]
"""Observation groups as numpy arrays, [rows, width]."""


class Table:
    """The table of one task with its parameters filled in; every method takes any number of rows."""

    def __init__(
        self, task: MujocoTask, params: Params, dtype: np.dtype[Any], variants: Variants | None = None
    ) -> None:
        self._task, self._params, self._dtype, self._variants = task, params, dtype, variants
        # Costs are summed apart from gains, so that rounding is that of `gains - costs`.
        self._gains = tuple(r for r in task.rewards if r.weight >= 0)
        self._costs = tuple(r for r in task.rewards if r.weight < 0)
        self._slices = _slices(task.observations)
        self.widths = {group: entries[-1][2] for group, entries in self._slices.items()}

    def params(self, state: State) -> Params:
        """The parameters of the state's rows."""
        return self._params if self._variants is None else self._variants.rows(state.variables[INDEX])

    def observe(self, state: State, rows: int) -> Groups:
        """Observation groups, [rows, width] each, in the environment's dtype."""
        groups, params = {}, self.params(state)
        for group, entries in self._slices.items():
            out = np.empty((rows, entries[-1][2]), self._dtype)
            for fn, start, stop in entries:
                out[:, start:stop] = fn(np, state, params)
            groups[group] = out
        return groups

    def reward(self, state: State, action: np.ndarray, rows: int) -> np.ndarray:
        """Weighted sum of the reward terms, [rows], float64."""
        params = self.params(state)
        total = _weighted(self._gains, state, action, params)
        costs = _weighted(self._costs, state, action, params)
        total = total if costs is None else costs if total is None else total + costs
        return np.zeros(rows) if total is None else np.array(total, np.float64)

    def reward_terms(self, state: State, action: np.ndarray) -> dict[str, np.ndarray]:
        """Each reward term with its weight, [rows]: what the sum consists of."""
        params = self.params(state)
        return {r.name: r.weight * r.fn(np, state, action, params) for r in self._task.rewards}

    def terminated(self, state: State, rows: int) -> np.ndarray:
        """The task's own end of the episode, bool [rows]."""
        return _condition(self._task.terminated, state, self.params(state), rows)

    def success(self, state: State, rows: int) -> np.ndarray:
        """The task is done in this very state, bool [rows]."""
        return _condition(self._task.success, state, self.params(state), rows)

    def metrics(self, state: State) -> dict[str, np.ndarray]:
        """The task's figures of the episodes so far, [rows] each."""
        params = self.params(state)
        return {name: np.array(fn(np, state, params), self._dtype) for name, fn in self._task.metrics.items()}

    def check(self, state: State, action: np.ndarray, rows: int) -> None:
        """Call every term once.

        Raises:
            ConfigError: naming the first term that reads a field the task does not list, has the wrong shape, or
                cannot read a parameter that differs between variants.
        """
        task, params = self._task, self.params(state)
        for o in task.observations:
            self._try(f"observation '{o.name}'", (rows, len(o.names)), o.fn, state, params)
        for r in task.rewards:
            self._try(f"reward '{r.name}'", (rows,), r.fn, state, action, params)
        for label in ("terminated", "success"):
            if (fn := getattr(task, label)) is not None:
                self._try(f"condition '{label}'", (rows,), fn, state, params)
        for name, fn in task.metrics.items():
            self._try(f"metric '{name}'", (rows,), fn, state, params)
        if task.control is not None and self._variants is not None:
            self._call("the control", task.control, state, action, params)

    def _try(self, what: str, shape: tuple[int, ...], fn: Callable[..., Any], *arguments: Any) -> None:
        found = np.shape(self._call(what, fn, *arguments))
        if found != shape:
            raise ConfigError(
                f"task {self._task.id}: {what} returned shape {found} for {shape[0]} environments, expected {shape} "
                "(environment first, one column per name)"
            )

    def _call(self, what: str, fn: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return fn(np, *arguments)
        except KeyError as error:
            raise ConfigError(
                f"task {self._task.id}: {what} reads {error}: add it to the task's fields, previous or params, "
                "or to what its reset returns"
            ) from error
        except (TypeError, ValueError) as error:
            if self._variants is None:
                raise
            raise ConfigError(
                f"task {self._task.id}: {what} takes one value of a parameter for all environments, and the variants "
                f"give it one each ({error}): vary another parameter"
            ) from error


def observation_specs(task: MujocoTask, dtype: str, params: Params) -> dict[str, ArraySpec]:
    """What each observation group holds, from the names and units of its terms."""
    specs = {}
    for group in dict.fromkeys(o.group for o in task.observations):
        terms = [o for o in task.observations if o.group == group]
        names = tuple(name for o in terms for name in o.names)
        units = tuple(unit for o in terms for unit in (o.units or ("",) * len(o.names)))
        made_of = tuple(o.term(params) for o in terms)
        specs[group] = ArraySpec((len(names),), dtype, names=names, units=units, terms=made_of)
    return specs


def _slices(terms: tuple[Observation, ...]) -> dict[str, list[tuple[Any, int, int]]]:
    slices: dict[str, list[tuple[Any, int, int]]] = {}
    for term in terms:
        entries = slices.setdefault(term.group, [])
        start = entries[-1][2] if entries else 0
        entries.append((term.fn, start, start + len(term.names)))
    return slices


def _weighted(terms: tuple[Reward, ...], state: State, action: np.ndarray, params: Params) -> Any:
    total: Any = None
    for term in terms:
        value = term.fn(np, state, action, params)
        value = value if term.weight == 1.0 else term.weight * value
        total = value if total is None else total + value
    return total


def _condition(fn: Any, state: State, params: Params, rows: int) -> np.ndarray:
    if fn is None:
        return np.zeros(rows, bool)
    return np.array(fn(np, state, params), bool)  # a copy: the term may hand out live memory
