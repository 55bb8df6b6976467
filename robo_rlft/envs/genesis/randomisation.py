"""Domain randomisation on Genesis: each episode's own masses, friction, gains, latency, pushes and noise.

As on MuJoCo, everything follows from the state of the environment's generator at the episode's start, and leaves that
generator alone. Masses, friction and gains live in Genesis' own per-environment parameters, which a saved state holds.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import UInt64

from robo_rlft.envs.genesis.arrays import Array, Arrays
from robo_rlft.envs.genesis.table import Groups
from robo_rlft.envs.genesis.task import GenesisTask
from robo_rlft.envs.genesis.world import Ids, World
from robo_rlft.envs.mujoco.randomised import KEY, UNDER_WAY, deviations
from robo_rlft.envs.randomise import PHYSICS, Draw, RandomiseConfig, draw, normal, uniform

LEAST_FRICTION = 0.01
"""Smallest factor of friction, as Genesis' own smallest coefficient."""


def supported(task: GenesisTask) -> tuple[str, ...]:
    """The fields of `PHYSICS` that a task can vary: pushes need a floating base."""
    return tuple(name for name in PHYSICS if task.floats or name != "push_velocity")


class Randomisation:
    """The draws of N environments' episodes, and their effects.

    Args:
        world: the physics.
        task: the task.
        config: what varies.
        arrays: the library of all arrays.
    """

    def __init__(self, world: World, task: GenesisTask, config: RandomiseConfig, arrays: Arrays) -> None:
        self._world, self._task, self._config, self._arrays = world, task, config, arrays
        self._active, num = config.active, world.num
        self._keys, self._salt = np.zeros((num, 6), np.uint64), np.zeros(num, np.uint64)
        self._latency = np.array(config.latency_s) / task.period_s
        self._longest = round(self._latency[1])
        self._delay = np.zeros(num, np.int64)
        self._under_way: dict[str, Array] = {}
        self._between = max(round(config.push_interval_s / task.period_s), 1)
        self._first = np.zeros(num, np.int64)
        self._std = {group: std for group, std in deviations(task.observations, config).items() if std.any()}

    def begin(self, keys: UInt64[np.ndarray, "row 6"], ids: Ids) -> None:
        """Episodes of `ids` begin, their starts being written: draw what they vary."""
        draws = self._remember(keys, ids)
        if "mass" in self._active:
            self._world.scale_masses(np.array([d.mass for d in draws]), ids)
        if "friction" in self._active:
            self._world.scale_friction(np.maximum([d.friction for d in draws], LEAST_FRICTION), ids)
        if "gains" in self._active:
            self._world.scale_gains(np.array([d.gains for d in draws]), ids)
        at = self._arrays.rows(ids)
        for name in self._world.targets if self._longest else ():
            start = self._world.fields[name]
            line = self._under_way.setdefault(name, self._arrays.xp.stack([start] * self._longest, 1))
            self._under_way[name] = self._arrays.copy(line)
            self._under_way[name][at] = start[at][:, None]

    def late(self, name: str, target: Array, alive: Array | None) -> Array:
        """The targets that reach the joints in a control step that commands `target`."""
        if not self._longest:
            return target
        xp, held = self._arrays.xp, self._under_way[name]
        line = xp.concatenate((held, target[:, None]), 1)
        self._under_way[name] = line[:, 1:] if alive is None else xp.where(alive[:, None, None], line[:, 1:], held)
        everyone = np.arange(self._world.num)
        return line[self._arrays.rows(everyone), self._arrays.rows(self._longest - self._delay)]

    def push(self, elapsed: Array, alive: Array | None) -> None:
        """Push those whose time has come, before a control step."""
        if self._config.push_velocity <= 0:
            return
        made = self._arrays.host(elapsed)
        count = made + self._first
        due = (made > 0) & (count % self._between == 0)
        rows = np.flatnonzero(due if alive is None else due & self._arrays.host(alive))
        if len(rows):
            kick = self._config.push_velocity * uniform(self._salt[rows], count[rows] // self._between, 2)
            self._world.push(self._task.floats, kick, rows)

    def measure(self, groups: Groups, elapsed: Array) -> Groups:
        """The observations after `elapsed` control steps as the sensors give them."""
        if not self._std:
            return groups
        made, noisy = self._arrays.host(elapsed), dict(groups)
        for number, (group, std) in enumerate(self._std.items()):
            noise = std * normal(self._salt ^ np.uint64(number), made, len(std))
            noisy[group] = groups[group] + self._arrays.own(noise)
        return noisy

    def save(self, ids: Ids) -> dict[str, np.ndarray]:
        """What `load` needs beside the physics, one row each."""
        at = self._arrays.rows(ids)
        late = {f"{UNDER_WAY}/{name}": self._arrays.host(line[at]) for name, line in self._under_way.items()}
        return {KEY: self._keys[ids], **late}

    def load(self, rows: Mapping[str, np.ndarray], ids: Ids) -> None:
        """Put saved rows into environments `ids`, whose physics is loaded."""
        self._remember(rows[KEY], ids)
        at = self._arrays.rows(ids)
        for name, line in self._under_way.items():
            self._under_way[name] = self._arrays.copy(line)
            self._under_way[name][at] = self._arrays.own(rows[f"{UNDER_WAY}/{name}"])

    def _remember(self, keys: UInt64[np.ndarray, "row 6"], ids: Ids) -> list[Draw]:
        self._keys[ids] = keys
        draws = [draw(key, self._config, self._world.num_bodies, self._world.num_joints) for key in keys]
        low, high = self._latency
        self._salt[ids] = [d.salt for d in draws]
        self._delay[ids] = np.round(low + (high - low) * np.array([d.latency for d in draws]))
        self._first[ids] = [int(d.first_push * self._between) for d in draws]
        return draws
