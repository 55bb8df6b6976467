"""N episodes of one task on Genesis: physics, the task's variables, step counters, success and random generators.

`engine` gives it the interface of `BatchEnv`. Everything per environment stays on the device; only a new episode is
drawn on the host, from its environment's own generator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from robo_rlft.envs.genesis.arrays import Array, Arrays
from robo_rlft.envs.genesis.randomisation import Randomisation
from robo_rlft.envs.genesis.table import Groups, Table
from robo_rlft.envs.genesis.task import GenesisTask, Params, State
from robo_rlft.envs.genesis.world import Ids, World
from robo_rlft.envs.mujoco import generators
from robo_rlft.envs.randomise import PHYSICS, RandomiseConfig
from robo_rlft.errors import ConfigError, SpecError, unknown_name


class Transition(NamedTuple):
    """What one control step gives, before any reset."""

    obs: Groups
    reward: Float[Array, " env"]
    terminated: Bool[Array, " env"]
    truncated: Bool[Array, " env"]


class Episodes:
    """The environments' episodes. `begin` must be called once before anything else.

    Args:
        gs: Genesis, started.
        task: the task's table.
        params: all of its parameters.
        num: environments, N.
        arrays: the library of all arrays.
        seed: environment i gets seed + i; None draws from the operating system.
        max_steps: control steps before truncation.
        randomise: how episodes differ.

    Attributes:
        obs: the observation groups of the present states.
        success: the task was done in the present episode, [N].
        elapsed: control steps made in the present episode, [N].
        variant: of the present episodes, [N].
        next_variant: of the next ones, [N].
        figures: the task's metrics of the episodes so far.
    """

    def __init__(
        self,
        gs: ModuleType,
        task: GenesisTask,
        params: Params,
        num: int,
        arrays: Arrays,
        *,
        seed: int | None,
        max_steps: int,
        randomise: RandomiseConfig,
    ) -> None:
        self.task, self.params, self.num, self.arrays, self.max_steps = task, params, num, arrays, max_steps
        self.world = World(gs, task, params, num, arrays)
        self.table = Table(task, params, arrays)
        self.generators = generators.spawn(seed, num)
        self.variables: dict[str, Array] = {}
        self.elapsed, self.success = arrays.full((num,), 0), arrays.full((num,), False)
        self.variant, self.next_variant = np.zeros(num, np.int64), np.zeros(num, np.int64)
        self.obs: Groups = {}
        self.figures: dict[str, Array] = {}
        self._broken = arrays.full((num,), 0)
        self._settings = [merged_params(task, {**params, **task.variants[name]}) for name in task.variants] or [params]
        self._random: Randomisation | None = None
        if any(name in PHYSICS for name in randomise.active):
            self._random = Randomisation(self.world, task, randomise, arrays)
        self._previous: dict[str, Array] = {}
        self._state: State | None = None

    def begin(self) -> None:
        """Start every episode and check the task's terms on it."""
        self.restart(np.arange(self.num))
        self.table.check(self.now(), self.arrays.full((self.num, len(self.task.action_names)), 0.0))
        self.obs = self._observe()

    @property
    def nan_resets(self) -> int:
        """Episodes ended because their physics broke."""
        return int(self._broken.sum())

    def advance(self, action: Float[Array, "env action"], alive: Bool[Array, " env"] | None = None) -> Transition:
        """One control step.

        Args:
            action: of every environment.
            alive: those that still play; None for all. The others hold their last targets, and their rows mean nothing.
        """
        xp, world = self.arrays.xp, self.world
        if self._random is not None:
            self._random.push(self.elapsed, alive)
        self._command(action, alive)
        self._previous = {name: self.arrays.copy(world.fields[name]) for name in self.task.previous}
        broken, self._state = world.step(), None
        self.elapsed = self.elapsed + 1 if alive is None else xp.where(alive, self.elapsed + 1, self.elapsed)
        state = self.now()
        obs, reward = self._observe(), self.table.reward(state, action)
        terminated = self.table.condition(self.task.terminated, state, self.num)
        truncated = self.elapsed >= self.max_steps
        bad = self._bad(obs, reward, broken)
        won = self.table.condition(self.task.success, state, self.num) & ~bad
        self.success = self.success | (won if alive is None else won & alive)
        self._broken = self._broken + (bad if alive is None else bad & alive)
        self._figure(state, bad, alive)
        return Transition(
            {name: xp.where(bad[:, None], self.obs[name], values) for name, values in obs.items()},
            xp.where(bad, xp.zeros_like(reward), reward),
            terminated & ~bad,
            truncated | bad,
        )

    def begin_again(self, ended: Bool[np.ndarray, " env"]) -> Groups:
        """New episodes where `ended`; the observations to act on next, of all environments."""
        ids = np.flatnonzero(ended)
        if len(ids):
            self.restart(ids)
            fresh, mask = self._observe(), self.arrays.own(ended)[:, None]
            self.obs = {k: self.arrays.xp.where(mask, v, self.obs[k]) for k, v in fresh.items()}
        return self.obs

    def restart(self, ids: Ids) -> None:
        """Draw a start for each of `ids` from its own generator."""
        self.variant[ids] = self.next_variant[ids]
        keys = generators.pack([self.generators[i] for i in ids])
        draws = [self.task.reset(self.generators[i], self._settings[self.variant[i]]) for i in ids]
        rows = {name: np.array([draw[name] for draw in draws]) for name in draws[0]}
        self.world.reset(ids, {name: values for name, values in rows.items() if "." in name})
        at = self.arrays.rows(ids)
        for name, values in rows.items():
            if "." not in name:
                self._variable(name, self.arrays.own(values))[at] = self.arrays.own(values)
        self.elapsed[at], self.success[at] = 0, False
        if self._random is not None:
            self._random.begin(keys, ids)
        self._state = None
        for name in self.task.previous:
            now = self.world.fields[name]
            self._previous.setdefault(name, self.arrays.copy(now))[at] = now[at]
        self._begin_figures(at)

    def now(self) -> State:
        """The present state, made once; after a step, with the fields before it."""
        if self._state is None:
            fields = self.world.fields
            if self.task.derived is not None:
                fields = {**fields, **self.task.derived(self.arrays.xp, fields, self.params)}
            self._state = State(fields, self._previous, self.variables)
        return self._state

    def save(self, ids: Ids) -> dict[str, np.ndarray]:
        """Full state of environments, one row each."""
        at, host = self.arrays.rows(ids), self.arrays.host
        rows = {"physics": self.world.save(ids)}
        rows |= {f"variable/{name}": host(values[at]) for name, values in self.variables.items()}
        rows |= {f"previous/{name}": host(values[at]) for name, values in self._previous.items()}
        rows |= {f"figure/{name}": host(values[at]) for name, values in self.figures.items()}
        rows |= {f"obs/{name}": host(values[at]) for name, values in self.obs.items()}
        rows |= {"elapsed": host(self.elapsed[at]), "success": host(self.success[at])}
        rows |= {} if self._random is None else self._random.save(ids)
        rows |= {"variant": self.variant[ids], "next_variant": self.next_variant[ids]}
        return rows | {"generator": generators.pack([self.generators[i] for i in ids])}

    def load(self, rows: Mapping[str, np.ndarray], ids: Ids) -> None:
        """Put saved rows into environments `ids`.

        Raises:
            SpecError: rows are missing or belong to another task.
        """
        self._check_rows(rows, ids)
        self.world.load(rows["physics"], ids)
        at, own = self.arrays.rows(ids), self.arrays.own
        groups = {"variable": self.variables, "previous": self._previous, "figure": self.figures, "obs": self.obs}
        for kind, group in groups.items():
            for name, values in group.items():
                group[name] = self.arrays.copy(values)
                group[name][at] = own(rows[f"{kind}/{name}"])
        self.elapsed[at], self.success[at] = own(rows["elapsed"]), own(rows["success"])
        self.variant[ids], self.next_variant[ids] = rows["variant"], rows["next_variant"]
        generators.unpack(rows["generator"], self.generators, ids)
        if self._random is not None:
            self._random.load(rows, ids)
        self._state = None

    def _observe(self) -> Groups:
        """The present observations, as the sensors give them."""
        obs = self.table.observe(self.now())
        return obs if self._random is None else self._random.measure(obs, self.elapsed)

    def _command(self, action: Array, alive: Array | None) -> None:
        xp = self.arrays.xp
        for name, values in self.task.control(xp, self.now(), action, self.params).items():
            held = self.world.fields if "." in name else self.variables
            values = self.arrays.kept(values, held[name])
            if "." in name and self._random is not None:
                values = self._random.late(name, values, alive)
            if alive is not None:
                values = xp.where(alive.reshape(-1, *[1] * (values.ndim - 1)), values, held[name])
            if "." in name:
                self.world.fields[name][:] = values
            else:
                self.variables[name] = values

    def _figure(self, state: State, bad: Array, alive: Array | None) -> None:
        """Bring the figures up to date where an episode goes on and its state is sound."""
        keep = ~bad if alive is None else alive & ~bad
        for name, values in self.table.metrics(state).items():
            self.figures[name] = self.arrays.xp.where(keep, values, self.figures[name])

    def _begin_figures(self, at: Array) -> None:
        for name, values in self.table.metrics(self.now()).items():
            kept = self.arrays.copy(self.figures.get(name, values))
            kept[at] = values[at]
            self.figures[name] = kept

    def _variable(self, name: str, like: Array) -> Array:
        """The variable, to be written to: not the array that an observer may hold."""
        if name in self.variables:
            self.variables[name] = self.arrays.copy(self.variables[name])
        else:
            self.variables[name] = self.arrays.blank(like, self.num)
        return self.variables[name]

    def _bad(self, obs: Groups, reward: Array, broken: Array) -> Array:
        xp = self.arrays.xp
        bad = broken | ~xp.isfinite(reward)
        for values in obs.values():
            bad = bad | ~xp.isfinite(values).all(-1)
        return bad

    def _check_rows(self, rows: Mapping[str, np.ndarray], ids: Ids) -> None:
        for name, like in self.save(ids[:1]).items():
            found = np.shape(rows[name]) if name in rows else "nothing"
            if found != (wanted := (len(ids), *like.shape[1:])):
                raise SpecError(
                    f"the saved state has {found} for '{name}' where {self.task.id} needs {wanted}: "
                    "give one row per environment, saved from the same task and version of Genesis"
                )


def merged_params(task: GenesisTask, params: Mapping[str, Any]) -> Params:
    """The task's defaults overridden by name.

    Raises:
        ConfigError: an unknown parameter, or one of the wrong type.
    """
    for name, value in params.items():
        if name not in task.params:
            raise ConfigError(unknown_name(f"parameter of {task.id}", name, task.params))
        default = task.params[name]
        wrong = {
            f"a {type(default).__name__}": isinstance(default, bool | str) and type(value) is not type(default),
            f"a number, such as {default}": type(default) in (int, float)
            and (isinstance(value, bool) or not isinstance(value, int | float | np.number)),
            f"{len(default) if isinstance(default, tuple | list) else 0} values": isinstance(default, tuple | list)
            and (not isinstance(value, Sequence) or len(value) != len(default)),
        }
        for expected, is_wrong in wrong.items():
            if is_wrong:
                raise ConfigError(f"parameter {name} of {task.id} is {value!r}: expected {expected}")
    return {**task.params, **params}


__all__ = ["Episodes", "Transition", "merged_params"]
