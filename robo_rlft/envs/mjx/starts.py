"""Starts of episodes, drawn on the host ahead of time so that ended environments begin anew on the device.

A task draws an episode's start in numpy, from its environment's own generator. Each environment has the next few of
them waiting on the device: a ring of `DEPTH` slots. A chunk uses up one at most, and what was used up in the chunk
before is drawn anew while the device works on the present one. Which start comes next so depends on the seed alone,
and is the one that the CPU engine would draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Int, Integer, UInt64

from robo_rlft.envs.mjx.devices import Place
from robo_rlft.envs.mujoco import generators
from robo_rlft.envs.mujoco.simulation import Simulation
from robo_rlft.envs.mujoco.task import MujocoTask, Params
from robo_rlft.envs.mujoco.variants import INDEX, Variants

Ids = Integer[np.ndarray, " row"]
DEPTH = 2
"""Starts that wait per environment: one for the chunk at work, one for the next while its successor is drawn."""
_BLOCK = 256
"""Starts drawn at once: bounds the memory of the simulation that works out their derived fields."""


class Start(NamedTuple):
    """Where episodes begin, one row each; or a ring of them, [N, DEPTH, ...].

    Attributes:
        rows: physics states.
        outputs: derived fields there.
        variables: the task's variables.
    """

    rows: Any
    outputs: dict[str, Any]
    variables: dict[str, Any]


class Starts:
    """Draws starts for N environments.

    Args:
        task: says how.
        params: all of its parameters.
        model: the model.
        num: environments, N.
        seed: environment i gets seed + i; None draws from the operating system.
        threads: of the physics of starts; 0 takes all CPUs.
        place: device and precision.
        variants: of the task, or None for the one that `params` say.

    Attributes:
        next_variant: the variant of each environment's next episode, [N].
        simulation: the CPU engine's physics on a few environments; it draws starts, never steps.
        ring: the starts that wait, on the device, [N, DEPTH, ...]; slot k holds those numbered k modulo `DEPTH`.
    """

    def __init__(
        self,
        task: MujocoTask,
        params: Params,
        model: mujoco.MjModel,
        num: int,
        *,
        seed: int | None,
        threads: int,
        place: Place,
        variants: Variants | None = None,
    ) -> None:
        self._task, self._params, self._place, self._variants = task, params, place, variants
        self.next_variant = np.zeros(num, np.int64)
        self._generators = generators.spawn(seed, num)
        fields = tuple(dict.fromkeys((*task.fields, *task.previous)))
        block = min(num, _BLOCK)
        self.simulation = Simulation(model, block, threads, fields, task.frame_skip, task.fresh)
        self._drawn = np.zeros(num, np.int64)
        self._before = np.zeros((num, DEPTH, 6), np.uint64)
        """Each waiting start's generator as it was before the draw."""
        self.ring: Start = self._first()

    def save(self, used: Int[np.ndarray, " env"], ids: Ids) -> UInt64[np.ndarray, "row 6"]:
        """Generators of `ids` as rows: they draw the next start of each, given how many each has used."""
        return self._before[ids, used[ids] % DEPTH]

    def load(self, packed: UInt64[np.ndarray, "row 6"], used: Int[np.ndarray, " env"], ids: Ids) -> None:
        """Let environments `ids` go on drawing from saved generators."""
        generators.unpack(packed, self._generators, ids)
        self._again(used, ids)

    def reseed(self, seed: int | Sequence[int], used: Int[np.ndarray, " env"], ids: Ids) -> None:
        """Seed environments `ids`: environment i gets seed + i, or the seeds in order when a sequence is given."""
        generators.reseed(self._generators, seed, ids)
        self._again(used, ids)

    def choose(self, variants: Int[np.ndarray, " row"], used: Int[np.ndarray, " env"], ids: Ids) -> None:
        """Let the next episodes of `ids` be of other variants: those that wait are drawn anew."""
        before = self.save(used, ids)
        self.next_variant[ids] = variants
        self.load(before, used, ids)

    def top_up(self, used: Int[np.ndarray, " env"]) -> None:
        """Draw until every environment has `DEPTH` starts waiting beyond those it is known to have used."""
        while len(ids := np.flatnonzero(self._drawn - used < DEPTH)):
            self._draw(ids)

    def _again(self, used: np.ndarray, ids: Ids) -> None:
        self._drawn[ids] = used[ids]
        for _ in range(DEPTH):
            self._draw(ids)

    def _first(self) -> Start:
        every = np.arange(len(self._drawn))
        slots = [self._start(every) for _ in range(DEPTH)]
        with self._place():
            return jax.tree.map(lambda *leaves: jnp.stack(leaves, 1), *map(self._place.put, slots))

    def _draw(self, ids: Ids) -> None:
        slots = self._drawn[ids] % DEPTH
        start = self._start(ids)
        # Padded to a power of two by repeating one row, so that few shapes are ever compiled.
        pad = np.arange(1 << (len(ids) - 1).bit_length()).clip(max=len(ids) - 1)
        with self._place():
            padded = self._place.put(jax.tree.map(lambda values: values[pad], start))
            self.ring = _placed(self.ring, ids[pad].astype(np.int32), slots[pad].astype(np.int32), padded)

    def _start(self, ids: Ids) -> Start:
        """The next start of each of `ids`."""
        self._before[ids, self._drawn[ids] % DEPTH] = generators.pack([self._generators[i] for i in ids])
        self._drawn[ids] += 1
        blocks = [self._block(ids[k : k + _BLOCK]) for k in range(0, len(ids), _BLOCK)]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *blocks)

    def _block(self, ids: Ids) -> Start:
        simulation, rows = self.simulation, np.arange(len(ids))
        draws = [self._task.reset(self._generators[i], simulation.model, self._params_of(i)) for i in ids]
        drawn = {name: np.array([draw[name] for draw in draws]) for name in draws[0]}
        fields = {name: values for name, values in drawn.items() if simulation.is_state(name)}
        simulation.restart(rows, fields)
        outputs = {name: simulation.data[name][rows].copy() for name in simulation.outputs}
        variables = {name: values for name, values in drawn.items() if name not in fields}
        if self._variants is not None:
            variables[INDEX] = self.next_variant[ids]
        return Start(simulation.state[rows].copy(), outputs, variables)

    def _params_of(self, env: int) -> Params:
        """What an environment's next episode is drawn with."""
        return self._params if self._variants is None else self._variants.params[self.next_variant[env]]


@jax.jit
def _placed(ring: Start, ids: jax.Array, slots: jax.Array, start: Start) -> Start:
    return jax.tree.map(lambda all_, new: all_.at[ids, slots].set(new.astype(all_.dtype)), ring, start)
