"""N episodes of one task in numpy: physics, the task's variables, step counters, success and random generators.

`engine` gives it the interface of `BatchEnv`, `chunk` steps it many control steps at a time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import mujoco
import numpy as np
from jaxtyping import Bool, Float, Int

from robo_rlft.envs.mujoco import generators
from robo_rlft.envs.mujoco.native import Interval
from robo_rlft.envs.mujoco.randomised import Randomised
from robo_rlft.envs.mujoco.ranges import Outside, Range
from robo_rlft.envs.mujoco.simulation import Ids, Simulation
from robo_rlft.envs.mujoco.table import Groups, Table
from robo_rlft.envs.mujoco.task import MujocoTask, Params, State
from robo_rlft.envs.mujoco.variants import INDEX, Variants
from robo_rlft.envs.randomise import PHYSICS, RandomiseConfig
from robo_rlft.errors import ConfigError, SpecError, unknown_name

NEXT = "next_variant"
"""What a saved state says of the variant of the episode after it."""


class Transition(NamedTuple):
    """What one control step of every environment gives, before any reset."""

    obs: Groups
    reward: Float[np.ndarray, " env"]
    terminated: Bool[np.ndarray, " env"]
    truncated: Bool[np.ndarray, " env"]


class Episodes:
    """The environments' episodes. `begin` must be called once before anything else.

    Args:
        task: the task's table.
        params: all of its parameters.
        num: environments, N.
        seed: environment i gets seed + i; None draws from the operating system.
        threads: of the simulation; 0 takes all CPUs.
        dtype: of observations and rewards.
        max_steps: control steps before truncation.
        capture_nan: folder for the states that broke, or None.
        variants: of the task, or None for the one that `params` say.
        randomise: how episodes differ.

    Attributes:
        next_variant: the variant of each environment's next episode, [N].
        obs: the observation groups of the present states.
        success: the task was done in the present episode, [N].
        elapsed: control steps made in the present episode, [N].
        nan_resets: episodes ended because they broke.
        sees_ends: compiled chunks end each environment's episode by themselves.
        idle_share: recent share of a chunk's steps that came after an episode's end, 0 to 1. It decides only how chunks
            are computed, never what they give.
    """

    def __init__(
        self,
        task: MujocoTask,
        params: Params,
        num: int,
        *,
        seed: int | None,
        threads: int,
        dtype: np.dtype[Any],
        max_steps: int,
        capture_nan: Path | None,
        variants: Variants | None = None,
        randomise: RandomiseConfig | None = None,
    ) -> None:
        self.task, self.params, self.num, self.max_steps = task, params, num, max_steps
        self.variants, self.next_variant = variants, np.zeros(num, np.int64)
        fields = tuple(dict.fromkeys((*task.fields, *task.previous)))
        model = task.model(params) if variants is None else variants.models[0]
        self.simulation = Simulation(model, num, threads, fields, task.frame_skip, task.fresh)
        self.table = Table(task, params, dtype, variants)
        self.generators = generators.spawn(seed, num)
        self.variables: dict[str, np.ndarray] = {} if variants is None else {INDEX: np.zeros(num, np.int64)}
        self.elapsed = np.zeros(num, np.int64)
        self.success = np.zeros(num, bool)
        self.obs: Groups = {}
        self.nan_resets = 0
        self.idle_share = 0.0
        self._ranges = self._declared_ranges()
        self._inside = None if self._ranges is None else self.simulation.watch(self._intervals(self._ranges))
        self.sees_ends = self._inside is not None
        self.random = self._randomised(randomise) if randomise is not None else None
        self._capture_nan = capture_nan
        self._never_succeeds = task.success is None

    def begin(self) -> None:
        """Start every episode and check the task's terms on it."""
        self.restart(np.arange(self.num))
        # With variants, on so many rows that numbers of environments cannot pass for columns by broadcasting.
        ids = None if self.variants is None else np.resize(np.arange(self.num), _CHECKED_ROWS)
        rows = self.num if ids is None else len(ids)
        self.table.check(self.now(ids), np.zeros((rows, len(self.task.action_names))), rows)
        self.obs = self.observe()

    def advance(self, action: Float[np.ndarray, "env action"], ids: Ids | None = None) -> Transition:
        """One control step of all environments, or of `ids` while the others keep still and their rows mean nothing."""
        previous = {name: self.simulation.data[name].copy() for name in self.task.previous}
        before = self.simulation.state.copy() if self._capture_nan else None
        self._command(action, ids)
        if self.random is not None:
            self.random.push(self.elapsed, ids)
        broken = self.simulation.step(ids)
        if ids is None:
            self.elapsed += 1
        else:
            self.elapsed[ids] += 1
        state = State(self.simulation.data, previous, self.variables)
        if self._inside is not None:
            state.memo[self._ranges] = self._inside
        step = Transition(
            self._measured(self.table.observe(state, self.num)),
            self.table.reward(state, action, self.num),
            self.table.terminated(state, self.num),
            self.elapsed >= self.max_steps,
        )
        success = self.success if self._never_succeeds else self.table.success(state, self.num)
        if broken is not None or not all_finite(step.reward, *step.obs.values()):
            bad = self._bad_rows(step, broken, ids)
            step = self._without(bad, step)
            success = success & ~bad
            self._report(bad, before, action)
        if not self._never_succeeds:
            self.success |= success if ids is None else success & _mask(ids, self.num)
        return step

    def begin_again(self, final: Groups, ended: Bool[np.ndarray, " env"]) -> Groups:
        """Start new episodes where `ended`; returns the observations to act on next."""
        ids = ended.nonzero()[0]
        if not len(ids):
            self.obs = final
            return final
        self.restart(ids)
        fresh = self.observe(ids)
        obs = {name: values.copy() for name, values in final.items()}
        for name, rows in fresh.items():
            obs[name][ids] = rows
        self.obs = obs
        return obs

    def restart(self, ids: Ids) -> None:
        """Draw a start for each of `ids` from its own generator."""
        if not len(ids):
            return
        defaults = None
        if self.variants is not None:
            self._set_variants(self.next_variant[ids], ids)
            defaults = self.variants.defaults[self.variant[ids]]
        if self.random is not None:
            self.random.begin(generators.pack([self.generators[i] for i in ids]), ids)
        draws = [self.task.reset(self.generators[i], *self._setting(i)) for i in ids]
        rows = {name: np.array([draw[name] for draw in draws]) for name in draws[0]}
        fields = {name: values for name, values in rows.items() if self.simulation.is_state(name)}
        self.simulation.restart(ids, fields, defaults)
        if self.random is not None:
            self.random.settle(ids)
        for name in rows.keys() - fields.keys():
            self._variable(name, rows[name])[ids] = rows[name]
        self.elapsed[ids], self.success[ids] = 0, False

    def now(self, ids: Ids | None = None) -> State:
        """The present state of all environments or of some."""
        data, variables = self.simulation.data, self.variables
        if ids is not None:
            data = {name: values[ids] for name, values in data.items()}
            variables = {name: values[ids] for name, values in variables.items()}
        return State(data, data, variables)

    def metrics(self) -> dict[str, np.ndarray]:
        """The task's figures of the present episodes, [N] each."""
        return {name: np.nan_to_num(values) for name, values in self.table.metrics(self.now()).items()}

    def observe(self, ids: Ids | None = None) -> Groups:
        """Observation groups of the present states."""
        return self._measured(self.table.observe(self.now(ids), self.num if ids is None else len(ids)), ids)

    def save(self, ids: Ids) -> dict[str, np.ndarray]:
        """Everything that decides the future of `ids`, one row each."""
        rows = self.simulation.save(ids)
        rows |= {f"variable/{name}": values[ids] for name, values in self.variables.items()}
        rows |= {"elapsed": self.elapsed[ids], "success": self.success[ids]}
        if self.variants is not None:
            rows[NEXT] = self.next_variant[ids]
        if self.random is not None:
            rows |= self.random.save(ids)
        return rows | {"generator": generators.pack([self.generators[i] for i in ids])}

    def load(self, rows: Mapping[str, np.ndarray], ids: Ids) -> None:
        """Put saved rows into environments `ids`."""
        self._check_rows(rows, ids)
        if self.variants is not None:
            self._check_variants(rows)
            self._set_variants(rows[f"variable/{INDEX}"], ids)
            self.next_variant[ids] = rows[NEXT]
        if self.random is not None:
            self.random.load(rows, ids)
        self.simulation.load(rows, ids)
        for name, values in self.variables.items():
            values[ids] = rows[f"variable/{name}"]
        self.elapsed[ids], self.success[ids] = rows["elapsed"], rows["success"]
        generators.unpack(rows["generator"], self.generators, ids)
        self.obs = self.observe()

    @property
    def variant(self) -> Int[np.ndarray, " env"]:
        """The variant of each environment's present episode."""
        return self.variables[INDEX] if self.variants is not None else np.zeros(self.num, np.int64)

    def _randomised(self, config: RandomiseConfig) -> Randomised | None:
        if not any(name in PHYSICS for name in config.active):
            return None
        period_s = self.simulation.model.opt.timestep * self.task.frame_skip
        return Randomised(self.simulation, config, self.task.observations, period_s, self._base)

    def _base(self, field: str, ids: Ids) -> np.ndarray:
        """A model field of `ids` before any draw: their variants', or all environments' own."""
        if self.variants is not None and field in self.variants.fields:
            return self.variants.fields[field][self.variant[ids]]
        return np.asarray(getattr(self.simulation.model, field))[None]

    def _measured(self, obs: Groups, ids: Ids | None = None) -> Groups:
        """Observations as the sensors give them."""
        if self.random is not None:
            env = np.arange(self.num) if ids is None else ids
            self.random.measure(obs, self.elapsed[env], env)
        return obs

    def _set_variants(self, variant: Int[np.ndarray, " row"], ids: Ids) -> None:
        """Environments `ids` become other variants, their models included."""
        assert self.variants is not None
        changed = self.variant[ids] != variant
        self.variables[INDEX][ids] = variant
        if changed.any() and self.variants.fields:
            self.simulation.give(self.variants.values(variant[changed]), ids[changed])

    def _setting(self, env: int) -> tuple[mujoco.MjModel, Params]:
        """Model and parameters that an environment's next episode is drawn with."""
        if self.variants is None:
            return self.simulation.model, self.params
        chosen = int(self.variant[env])
        return self.variants.models[chosen], self.variants.params[chosen]

    def _declared_ranges(self) -> tuple[Range, ...] | None:
        """What an episode must stay within, None where the task's end is not that of ranges of the physics state."""
        ends = self.task.terminated
        if ends is None:
            return ()
        if not isinstance(ends, Outside) or not all(self.simulation.is_state(r.field) for r in ends.ranges):
            return None
        if self.variants is not None and not all(r.bounds in self.variants.common for r in ends.ranges):
            return None
        return ends.ranges

    def _intervals(self, ranges: tuple[Range, ...]) -> list[Interval]:
        params = self.params if self.variants is None else self.variants.common
        bounds = [(r, *params[r.bounds]) for r in ranges]
        interval = self.simulation.interval
        return [interval(r.field, r.start, r.stop, low, high, r.closed) for r, low, high in bounds]

    def _command(self, action: np.ndarray, ids: Ids | None) -> None:
        if self.task.control is None:
            self._write("ctrl", self._sent(action, ids), ids)
            return
        state = self.now()
        commands = self.task.control(np, state, action, self.table.params(state))
        # Copied before the first is written: one variable's new value may be another's old one, which is live memory.
        for name, values in {name: np.array(values) for name, values in commands.items()}.items():
            self._write(name, self._sent(values, ids) if name == "ctrl" else values, ids)

    def _sent(self, control: np.ndarray, ids: Ids | None) -> np.ndarray:
        """The commands that reach the actuators."""
        return control if self.random is None else self.random.late(control, ids)

    def _write(self, name: str, values: np.ndarray, ids: Ids | None) -> None:
        target = self.variables[name] if name in self.variables else self.simulation.field(name)
        if ids is None:
            target[...] = values
        else:
            target[ids] = values[ids]

    def _variable(self, name: str, like: np.ndarray) -> np.ndarray:
        if name not in self.variables:
            self.variables[name] = np.zeros((self.num, *like.shape[1:]), like.dtype)
        return self.variables[name]

    def _bad_rows(self, step: Transition, broken: Ids | None, ids: Ids | None) -> np.ndarray:
        bad = ~np.isfinite(step.reward)
        for values in step.obs.values():
            bad |= ~np.isfinite(values).all(axis=1)
        if broken is not None:
            bad[broken] = True
        return bad if ids is None else bad & _mask(ids, self.num)

    def _without(self, bad: np.ndarray, step: Transition) -> Transition:
        """The same step, where broken environments end with their last good observation and no reward."""
        return Transition(
            {name: np.where(bad[:, None], self.obs[name], values) for name, values in step.obs.items()},
            np.where(bad, 0.0, step.reward),
            step.terminated & ~bad,
            step.truncated | bad,
        )

    def _report(self, bad: np.ndarray, before: np.ndarray | None, action: np.ndarray) -> None:
        ids = np.flatnonzero(bad)
        if before is not None and self._capture_nan is not None:
            self._capture_nan.mkdir(parents=True, exist_ok=True)
            path = self._capture_nan / f"{self.task.id}-{self.nan_resets}.npz"
            np.savez(path, ids=ids, physics=before[ids], action=action[ids], elapsed=self.elapsed[ids])
        self.nan_resets += len(ids)

    def _check_variants(self, rows: Mapping[str, np.ndarray]) -> None:
        assert self.variants is not None
        found = np.concatenate([rows[f"variable/{INDEX}"], rows[NEXT]])
        if len(found) and not 0 <= found.min() <= found.max() < len(self.variants.names):
            raise SpecError(
                f"the saved state has variants up to {found.max()} where {self.task.id} has "
                f"{len(self.variants.names)}: save it from the same variants"
            )

    def _check_rows(self, rows: Mapping[str, np.ndarray], ids: Ids) -> None:
        expected = self.save(ids[:1])
        for name, like in expected.items():
            if name.startswith("model/") and name not in rows:
                continue
            found = np.shape(rows[name]) if name in rows else "nothing"
            if found != (wanted := (len(ids), *like.shape[1:])):
                raise SpecError(
                    f"the saved state has {found} for '{name}' where {self.task.id} needs {wanted}: "
                    "give one row per environment, saved from the same task"
                )


_CHECKED_ROWS = 1009


def merged_params(task: MujocoTask, params: Mapping[str, Any]) -> Params:
    """The task's defaults overridden by name."""
    for name, value in params.items():
        if name not in task.params:
            raise ConfigError(unknown_name(f"parameter of {task.id}", name, task.params))
        _check_param(task, name, value)
    return {**task.params, **params}


def named_params(
    task: MujocoTask, params: Mapping[str, Any], variants: Mapping[str, Mapping[str, Any]]
) -> dict[str, Params]:
    """All parameters of each variant: the task's defaults, overridden by `params`, overridden by the variant's own."""
    for name, values in variants.items():
        if not isinstance(values, Mapping):
            raise ConfigError(
                f"variant {name} of {task.id} is {values!r}: give parameters by name, such as {{{name}: "
                f"{{{next(iter(task.params), 'parameter')}: value}}}}"
            )
    return {str(name): merged_params(task, {**params, **values}) for name, values in variants.items()}


def _check_param(task: MujocoTask, name: str, value: Any) -> None:
    default = task.params[name]
    if isinstance(default, bool | str) and type(value) is not type(default):
        raise ConfigError(f"parameter {name} of {task.id} is {value!r}: expected a {type(default).__name__}")
    if isinstance(default, int | float) and not isinstance(value, int | float | np.number):
        raise ConfigError(f"parameter {name} of {task.id} is {value!r}: expected a number, such as {default}")
    if isinstance(default, tuple | list) and (not isinstance(value, Sequence) or len(value) != len(default)):
        raise ConfigError(f"parameter {name} of {task.id} is {value!r}: expected {len(default)} values")


def all_finite(*arrays: np.ndarray) -> bool:
    """Whether every entry is finite; rarely False also where they are huge."""
    # A sum of squares is finite only where every entry is: one pass without a temporary array. As it may overflow on
    # its own, the caller looks at the entries before it acts.
    total = 0.0
    for values in arrays:
        flat = values.reshape(-1)
        total += float(flat.dot(flat))
    return math.isfinite(total)


def _mask(ids: Ids, num: int) -> np.ndarray:
    mask = np.zeros(num, bool)
    mask[ids] = True
    return mask
