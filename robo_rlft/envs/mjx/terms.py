"""A task's table over a batch in JAX: the very functions that the CPU engine evaluates in numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from robo_rlft.envs.mujoco.task import MujocoTask, Observation, Params, Reward, State
from robo_rlft.envs.mujoco.variants import INDEX, Variants

Groups = dict[str, jax.Array]
"""Observation groups, [N, width]."""


class Terms:
    """The terms of one task with its parameters filled in. All methods are pure and may be traced."""

    def __init__(self, task: MujocoTask, params: Params, dtype: np.dtype[Any], variants: Variants | None) -> None:
        self._task, self._params, self._dtype = task, params, dtype
        every = {} if variants is None else variants.rows(np.arange(len(variants.names)))
        self._varying = {} if variants is None else {n: v for n, v in every.items() if n not in variants.common}

    def params(self, state: State) -> Params:
        """The parameters of the state's rows: what differs between variants is an array, [N]."""
        if not self._varying:
            return self._params
        chosen = {name: jnp.asarray(values)[state.variables[INDEX]] for name, values in self._varying.items()}
        return {**self._params, **chosen}

    def metrics(self, state: State) -> dict[str, Float[jax.Array, " env"]]:
        """The task's figures of the episodes so far; 0 where there is none yet."""
        found = {name: fn(jnp, state, self.params(state)) for name, fn in self._task.metrics.items()}
        return {name: jnp.nan_to_num(jnp.asarray(values, self._dtype)) for name, values in found.items()}

    def observe(self, state: State, count: int) -> Groups:
        """Observation groups, [N, width] each."""
        groups: dict[str, list[Observation]] = {}
        for term in self._task.observations:
            groups.setdefault(term.group, []).append(term)
        return {name: self._joined(terms, state, count) for name, terms in groups.items()}

    def reward(self, state: State, action: Float[jax.Array, "env action"]) -> Float[jax.Array, " env"]:
        """Weighted sum of the reward terms, gains first, as on the CPU."""
        gains = self._sum([r for r in self._task.rewards if r.weight >= 0], state, action)
        return gains + self._sum([r for r in self._task.rewards if r.weight < 0], state, action)

    def terminated(self, state: State, count: int) -> Bool[jax.Array, " env"]:
        """The task's own end of the episode."""
        return self._condition(self._task.terminated, state, count)

    def success(self, state: State, count: int) -> Bool[jax.Array, " env"]:
        """The task is done in this very state."""
        return self._condition(self._task.success, state, count)

    def control(self, state: State, action: Float[jax.Array, "env action"]) -> dict[str, jax.Array]:
        """New values of state fields and task variables."""
        if self._task.control is None:
            return {"ctrl": action}
        return dict(self._task.control(jnp, state, action, self.params(state)))

    def _joined(self, terms: Sequence[Observation], state: State, count: int) -> jax.Array:
        params = self.params(state)
        parts = [jnp.asarray(term.fn(jnp, state, params), self._dtype) for term in terms]
        shapes = [(count, len(term.names)) for term in terms]
        return jnp.concatenate([jnp.broadcast_to(p, s) for p, s in zip(parts, shapes, strict=True)], -1)

    def _sum(self, terms: Sequence[Reward], state: State, action: jax.Array) -> jax.Array:
        total, params = jnp.zeros(len(action), self._dtype), self.params(state)
        for term in terms:
            total = total + term.weight * term.fn(jnp, state, action, params)
        return total.astype(self._dtype)

    def _condition(self, fn: Any, state: State, count: int) -> jax.Array:
        if fn is None:
            return jnp.zeros(count, bool)
        return jnp.asarray(fn(jnp, state, self.params(state)), bool)
