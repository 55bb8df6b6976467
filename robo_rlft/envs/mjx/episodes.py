"""N episodes as one tree of arrays, and a whole chunk of control steps as one pure function of it.

`Program` holds the compiled functions; `engine` gives them the interface of `BatchEnv`.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Bool, Float, Int

from robo_rlft.envs.mjx.devices import Place
from robo_rlft.envs.mjx.physics import Physics
from robo_rlft.envs.mjx.starts import DEPTH, Start
from robo_rlft.envs.mjx.terms import Groups, Terms
from robo_rlft.envs.mujoco.simulation import Simulation
from robo_rlft.envs.mujoco.task import MujocoTask, Params, State
from robo_rlft.envs.mujoco.variants import Variants


class Episodes(NamedTuple):
    """Everything that decides the future of N environments, but for the starts that wait.

    Attributes:
        rows: physics states, [N, state].
        outputs: derived fields of the present state, as the task reads them.
        variables: the task's variables.
        obs: observations of the present state.
        elapsed: control steps made in the present episode.
        success: the task was done in the present episode.
        used: starts used so far, the present episode's included.
    """

    rows: Float[jax.Array, "env state"]
    outputs: dict[str, jax.Array]
    variables: dict[str, jax.Array]
    obs: Groups
    elapsed: Int[jax.Array, " env"]
    success: Bool[jax.Array, " env"]
    used: Int[jax.Array, " env"]


class Chunk(NamedTuple):
    """What H control steps give. As in `ChunkResult`, and:

    Attributes:
        broken: the NaN guard ended it.
        at_break: physics before the step that broke, where it broke.
        commanded: the action of an environment's last executed step.
        elapsed: control steps of the episode up to there.
    """

    obs: Groups
    reward: Float[jax.Array, "env chunk"]
    terminated: Bool[jax.Array, " env"]
    truncated: Bool[jax.Array, " env"]
    length: Int[jax.Array, " env"]
    final: Groups
    success: Bool[jax.Array, " env"]
    trace: Groups | None
    broken: Bool[jax.Array, " env"]
    at_break: Float[jax.Array, "env state"]
    commanded: Float[jax.Array, "env action"]
    elapsed: Int[jax.Array, " env"]
    metrics: dict[str, Float[jax.Array, " env"]]


class _Run(NamedTuple):
    """A chunk at work, after some of its steps."""

    step: jax.Array
    episodes: Episodes
    alive: jax.Array
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    broken: jax.Array
    length: jax.Array
    trace: Groups | None


class Program:
    """The compiled functions of one task with its parameters, on one device, for any number of environments.

    Args:
        task: the task's table.
        params: all of its parameters.
        model: with the options it is stepped with.
        max_steps: control steps before truncation.
        place: device and precision.
        variants: of the task, or None for the one that `params` say.

    Raises:
        ConfigError: MJX lacks something that the model or the terms need.
    """

    def __init__(
        self,
        task: MujocoTask,
        params: Params,
        model: mujoco.MjModel,
        max_steps: int,
        place: Place,
        variants: Variants | None = None,
    ) -> None:
        self.task, self.params, self.model, self.max_steps, self.place = task, params, model, max_steps, place
        self.variants = variants
        # The CPU engine's own physics knows which fields there are, and their shapes.
        simulation = Simulation(model, 1, 1, tuple(dict.fromkeys((*task.fields, *task.previous))), 1, task.fresh)
        outputs = {name: simulation.data[name].shape[1:] for name in simulation.outputs}
        self.physics = Physics(task.id, model, outputs, task.frame_skip, task.fresh, place)
        self._terms = Terms(task, params, place.dtype, variants)
        self._previous, self._dtype = task.previous, place.dtype
        self._states = tuple(n for n in simulation.data if simulation.is_state(n))
        constants = set(simulation.data) - set(self._states) - set(outputs)
        with place():
            self._constants = place.put({name: np.asarray(getattr(model, name)) for name in constants})
        self.chunk = jax.jit(self._chunk, static_argnames="traced")
        self.restart = jax.jit(self._restart)
        self.observe = jax.jit(lambda episodes: self._observe(self._now(episodes), len(episodes.rows)))

    def begin(self, ring: Start) -> Episodes:
        """Every environment's first episode."""
        count = ring.rows.shape[0]
        start = jax.tree.map(lambda leaf: leaf[:, 0], ring)
        zero, no = jnp.zeros(count, jnp.int32), jnp.zeros(count, bool)
        blank = Episodes(*start, obs={}, elapsed=zero, success=no, used=zero + 1)
        return blank._replace(obs=self.observe(blank))

    def _chunk(
        self,
        episodes: Episodes,
        ring: Start,
        actions: Float[jax.Array, "env chunk action"],
        steps: Int[jax.Array, ""],
        traced: bool,
    ) -> tuple[Episodes, Chunk]:
        """`steps` (all) control steps, or fewer where all episodes end before; then new ones where they ended."""
        count, capacity = actions.shape[:2]
        no = jnp.zeros(count, bool)
        trace = {n: jnp.repeat(v[:, None], capacity + 1, 1) for n, v in episodes.obs.items()} if traced else None
        reward = jnp.zeros((count, capacity), self._dtype)
        length = jnp.zeros(count, jnp.int32)
        run = _Run(jnp.int32(0), episodes, ~no, reward, no, no, no, length, trace)
        # `steps` is known at run time only: a chunk of one step remains the same loop as any other.
        run = jax.lax.while_loop(lambda r: (r.step < steps) & r.alive.any(), partial(self._step, actions), run)
        last = run.episodes
        ended = run.terminated | run.truncated
        following = self._restart(last, ring, ended)
        return following, Chunk(
            following.obs,
            run.reward,
            run.terminated,
            run.truncated,
            run.length,
            last.obs,
            last.success,
            run.trace and {n: _held(values, run.length) for n, values in run.trace.items()},
            run.broken,
            last.rows,
            jnp.take_along_axis(actions, run.length[:, None, None] - 1, 1)[:, 0],
            last.elapsed,
            self._terms.metrics(self._now(last)),
        )

    def _step(self, actions: jax.Array, run: _Run) -> _Run:
        """One control step of the environments whose episodes have not ended."""
        before, alive = run.episodes, run.alive
        action = jax.lax.dynamic_index_in_dim(actions, run.step, 1, keepdims=False)
        # Nothing within is merged with what is around it, so that it rounds alike in chunks of any length.
        isolated = jax.lax.optimization_barrier
        after, reward, terminated, success, bad = isolated(self._advance(*isolated((before, action))))
        good, bad = alive & ~bad, alive & bad
        # A broken environment keeps the state before it broke: no NaN is stepped on, and it can be looked at.
        episodes = _where(good, after, before)
        episodes = episodes._replace(
            elapsed=before.elapsed + alive, success=before.success | (success & good), used=before.used
        )
        truncated = (alive & (episodes.elapsed >= self.max_steps)) | bad
        terminated = terminated & good
        trace = run.trace and {
            name: jax.lax.dynamic_update_index_in_dim(values, episodes.obs[name], run.step + 1, 1)
            for name, values in run.trace.items()
        }
        return _Run(
            run.step + 1,
            episodes,
            alive & ~terminated & ~truncated,
            jax.lax.dynamic_update_index_in_dim(run.reward, jnp.where(good, reward, 0.0), run.step, 1),
            run.terminated | terminated,
            run.truncated | truncated,
            run.broken | bad,
            run.length + alive,
            trace,
        )

    def _advance(
        self, before: Episodes, action: jax.Array
    ) -> tuple[Episodes, jax.Array, jax.Array, jax.Array, jax.Array]:
        """What one control step makes of all environments: episodes, reward, terminated, success, broken."""
        count, now = len(before.rows), self._now(before)
        rows, variables = before.rows, dict(before.variables)
        for name, values in self._terms.control(now, action).items():
            if name in variables:
                variables[name] = jnp.broadcast_to(values, variables[name].shape).astype(variables[name].dtype)
            else:
                rows = self.physics.write(rows, name, values)
        rows, outputs = self.physics.advance(rows)
        after = before._replace(rows=rows, outputs=outputs, variables=variables)
        state = State(self._data(after), {name: now.data[name] for name in self._previous}, variables)
        after = after._replace(obs=self._observe(state, count))
        reward = self._terms.reward(state, action)
        bad = self.physics.unstable(rows) | ~_finite(reward, *after.obs.values())
        return after, reward, self._terms.terminated(state, count), self._terms.success(state, count), bad

    def _restart(self, episodes: Episodes, ring: Start, ended: Bool[jax.Array, " env"]) -> Episodes:
        """New episodes where `ended`, from each environment's next start."""
        count = len(episodes.rows)
        start = jax.tree.map(lambda leaf: leaf[jnp.arange(count), episodes.used % DEPTH], ring)
        fresh = episodes._replace(rows=start.rows, outputs=start.outputs, variables=start.variables)
        fresh = fresh._replace(
            obs=self._observe(self._now(fresh), count),
            elapsed=jnp.zeros_like(episodes.elapsed),
            success=jnp.zeros_like(episodes.success),
            used=episodes.used + 1,
        )
        return _where(ended, fresh, episodes)

    def _now(self, episodes: Episodes) -> State:
        data = self._data(episodes)
        return State(data, data, episodes.variables)

    def _data(self, episodes: Episodes) -> dict[str, jax.Array]:
        rows = episodes.rows
        constants = {n: jnp.broadcast_to(v, (len(rows), *v.shape)) for n, v in self._constants.items()}
        return {n: self.physics.field(rows, n) for n in self._states} | episodes.outputs | constants

    def _observe(self, state: State, count: int) -> Groups:
        return self._terms.observe(state, count)


def _held(values: Float[jax.Array, "env moment width"], length: Int[jax.Array, " env"]) -> jax.Array:
    """A trace whose last executed entry is repeated after an episode's end."""
    moments = jnp.minimum(jnp.arange(values.shape[1]), length[:, None])
    return jnp.take_along_axis(values, moments[:, :, None], 1)


def _where(mask: Bool[jax.Array, " env"], new: Any, old: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(mask.reshape(-1, *[1] * (a.ndim - 1)), a, b), new, old)


def _finite(*arrays: jax.Array) -> Bool[jax.Array, " env"]:
    checks = [jnp.isfinite(values).reshape(len(values), -1).all(1) for values in arrays]
    return jnp.stack(checks).all(0)
