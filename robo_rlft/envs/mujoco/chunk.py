"""A whole chunk of control steps: in one compiled call where the task allows it, else step by step over the batch.

Both give the same numbers, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from robo_rlft.envs.mujoco.episodes import Episodes, all_finite
from robo_rlft.envs.mujoco.simulation import Ids
from robo_rlft.envs.mujoco.table import Groups
from robo_rlft.envs.mujoco.task import State

_IDLE_LIMIT = 0.03
"""Compiled chunks that cannot see an episode's end also simulate what follows it. Beyond this share of such steps,
which only policies that fall all the time reach, skipping them step by step is faster."""
_IDLE_RATE = 0.1


@dataclass
class Chunk:
    """What H control steps give, before any reset. An environment that ends stays as it is from there on.

    Attributes:
        reward: [N, H], 0 after the end.
        terminated: the task's own end came within the chunk.
        truncated: the time limit or the NaN guard ended it.
        length: control steps executed.
        final: observations after the last executed step, [N, width].
        trace: observations before the chunk and after every step, [N, H + 1, width], the last repeated.
    """

    reward: Float[np.ndarray, "env chunk"]
    terminated: Bool[np.ndarray, " env"]
    truncated: Bool[np.ndarray, " env"]
    length: Int[np.ndarray, " env"]
    final: Groups
    trace: Groups | None


def advance_chunk(
    episodes: Episodes,
    actions: Float[np.ndarray, "env chunk action"],
    trace: bool,
    watch: Callable[[Ids], Groups] | None = None,
) -> Chunk:
    """H control steps of every environment; resets nothing.

    Args:
        episodes: the environments.
        actions: what to do.
        trace: record the observations of every step.
        watch: called after every control step with the environments that made it; what it returns for all of them joins
            the trace. Nobody can watch compiled chunks: those are then stepped.
    """
    worthwhile = episodes.sees_ends or episodes.idle_share < _IDLE_LIMIT
    task = episodes.task
    simple = task.control is None and not task.metrics and not (episodes.random and episodes.random.pushes)
    rolls = simple and episodes.simulation.rolls and worthwhile and watch is None
    chunk = _rolled(episodes, actions, trace) if rolls else _stepped(episodes, actions, trace, watch)
    idle = 1.0 - float(chunk.length.mean()) / actions.shape[1]
    episodes.idle_share += _IDLE_RATE * (idle - episodes.idle_share)
    return chunk


def _stepped(
    episodes: Episodes, actions: np.ndarray, trace: bool, watch: Callable[[Ids], Groups] | None = None
) -> Chunk:
    """One control step after the other, only in environments that have not ended."""
    num, steps = actions.shape[:2]
    alive = np.ones(num, bool)
    reward = np.zeros((num, steps))
    terminated, truncated, length = np.zeros(num, bool), np.zeros(num, bool), np.zeros(num, np.int64)
    look = watch or _nothing
    seen = [{**episodes.obs, **look(np.arange(0))}]
    for h in range(steps):
        if not alive.any():
            break
        every = bool(alive.all())
        step = episodes.advance(actions[:, h], None if every else np.flatnonzero(alive))
        episodes.obs = step.obs if every else _where(alive, step.obs, episodes.obs)
        reward[:, h] = step.reward if every else np.where(alive, step.reward, 0.0)
        terminated |= step.terminated & alive
        truncated |= step.truncated & alive
        length += alive
        seen.append({**episodes.obs, **look(np.flatnonzero(alive))})
        alive = alive & ~(step.terminated | step.truncated)
    seen += seen[-1:] * (steps + 1 - len(seen))
    history = {name: np.stack([obs[name] for obs in seen], axis=1) for name in seen[0]} if trace else None
    return Chunk(reward, terminated, truncated, length, episodes.obs, history)


def _rolled(episodes: Episodes, actions: np.ndarray, trace: bool) -> Chunk:
    """All steps in compiled code; the terms are then evaluated on the recorded states at once."""
    num, steps, width = actions.shape
    simulation, table, rows = episodes.simulation, episodes.table, num * steps
    everyone = np.arange(num)
    before = simulation.save(everyone, models=False)
    previous = {name: simulation.data[name].copy() for name in episodes.task.previous}
    limits = np.maximum(episodes.max_steps - episodes.elapsed, 1)
    random = episodes.random
    records = simulation.roll(actions if random is None else random.late_chunk(actions), limits)
    if not len(records.suspect):
        state = _flattened(episodes, previous, records.fields, steps)
        obs = table.observe(state, rows)
        if random is not None:
            random.measure(obs, _numbers(episodes.elapsed, steps), np.repeat(everyone, steps))
        reward = table.reward(state, actions.reshape(rows, width), rows)
        if all_finite(reward, *obs.values()):
            chunk = _until_the_end(episodes, state, obs, reward.reshape(num, steps), trace)
            if random is not None:
                random.take(actions, chunk.length)
            return chunk
    # MuJoCo or a term met a number it cannot use, perhaps after an episode's end: step by step it is told which.
    simulation.load(before, everyone)
    return _stepped(episodes, actions, trace)


def _nothing(ids: Ids) -> Groups:
    """Nobody watches."""
    return {}


def _flattened(
    episodes: Episodes, previous: Mapping[str, np.ndarray], ends: Mapping[str, np.ndarray], steps: int
) -> State:
    """Recorded fields [N, H, ...] as a state of N * H rows, with what the recording leaves out repeated."""
    data = {
        name: _rows(ends[name]) if name in ends else np.repeat(values, steps, axis=0)
        for name, values in episodes.simulation.data.items()
    }
    earlier = {
        name: _rows(np.concatenate((first[:, None], ends[name][:, :-1]), axis=1)) for name, first in previous.items()
    }
    variables = {name: np.repeat(values, steps, axis=0) for name, values in episodes.variables.items()}
    return State(data, earlier, variables)


def _until_the_end(episodes: Episodes, state: State, obs: Groups, reward: np.ndarray, trace: bool) -> Chunk:
    """Cut every environment's steps at its first end."""
    num, steps = reward.shape
    terminated = episodes.table.terminated(state, num * steps).reshape(num, steps)
    truncated = episodes.elapsed[:, None] + np.arange(1, steps + 1) >= episodes.max_steps
    ended = terminated | truncated
    length = np.where(ended.any(axis=1), ended.argmax(axis=1) + 1, steps)
    executed = np.arange(steps) < length[:, None]
    episodes.elapsed += length
    if episodes.task.success is not None:
        success = episodes.table.success(state, num * steps).reshape(num, steps)
        episodes.success |= (success & executed).any(axis=1)
    last = np.arange(num) * steps + length - 1
    final = {name: values[last] for name, values in obs.items()}
    history = _history(episodes.obs, obs, length, steps) if trace else None
    episodes.obs = final
    return Chunk(
        np.where(executed, reward, 0.0),
        terminated.reshape(-1)[last],
        truncated.reshape(-1)[last],
        length,
        final,
        history,
    )


def _history(start: Groups, obs: Groups, length: np.ndarray, steps: int) -> Groups:
    """[N, H + 1, width]: the observation before, then those after each step, the last executed one repeated."""
    num = len(length)
    taken = np.minimum(np.arange(steps), length[:, None] - 1) + np.arange(num)[:, None] * steps
    return {name: np.concatenate((start[name][:, None], values[taken]), axis=1) for name, values in obs.items()}


def _numbers(elapsed: np.ndarray, steps: int) -> np.ndarray:
    """The number of each of the next control steps, [N * H]."""
    return (elapsed[:, None] + np.arange(1, steps + 1)).reshape(-1)


def _rows(values: np.ndarray) -> np.ndarray:
    return values.reshape(values.shape[0] * values.shape[1], *values.shape[2:])


def _where(mask: np.ndarray, new: Groups, old: Groups) -> Groups:
    return {name: np.where(mask[:, None], values, old[name]) for name, values in new.items()}
