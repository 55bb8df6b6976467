"""What a worker does: its environments, and the orders it takes. The same code serves in the main process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robo_rlft.envs.base import Fidelity
from robo_rlft.envs.pool.single import Frame, SingleFactory
from robo_rlft.envs.pool.slot import Row, Slot
from robo_rlft.spec import RobotSpec

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Description:
    """What the environments of a pool have in common, see `SingleEnv`."""

    robot: RobotSpec
    fidelity: Fidelity
    drift: float
    has_success: bool
    metrics: tuple[str, ...]
    variants: tuple[str, ...]
    has_expert: bool
    survives_fork: bool


class Crew:
    """Environments `rows` of a pool. Every public method is an order; results go into the arrays, or are returned.

    Args:
        make: makes one environment.
        rows: which rows of the pool's arrays are theirs.
        seeds: of their first episodes.
    """

    def __init__(self, make: SingleFactory, rows: Sequence[int], seeds: Sequence[int | None]) -> None:
        self.rows = list(rows)
        self.slots = {row: Slot(make(), seed) for row, seed in zip(rows, seeds, strict=True)}
        self.arrays: Arrays = {}

    def describe(self) -> Description:
        """Of the first environment; the others are made alike."""
        env = self.slots[self.rows[0]].env
        capabilities = env.has_success, env.metrics, env.variants, env.has_expert, env.survives_fork
        return Description(env.robot, env.fidelity, env.drift, *capabilities)

    def reset(self, seeds: Mapping[int, int | None]) -> list[str]:
        """Begin new episodes in some rows, from their seeds or their own generators."""
        for row, seed in seeds.items():
            if seed is not None:
                self.slots[row].seed(seed)
            self._show(row, self.slots[row].begin())
        return self.instructions()

    def chunk(self, steps: int, record: bool) -> list[str]:
        """Execute `actions`."""
        # A copy: a simulator may keep what it is given, and the shared memory must stay free to close.
        actions = self.arrays["actions"][self.rows, :steps]
        for i, (row, slot) in enumerate(self.slots.items()):
            slot.chunk(actions[i], record, self._row(row))
        return self.instructions()

    def choose(self, variants: Mapping[int, int]) -> None:
        """Which variants the next episodes of some rows are."""
        for row, variant in variants.items():
            self.slots[row].next_variant = variant

    def variants(self) -> list[int]:
        """Of the present episodes."""
        return [slot.variant for slot in self.slots.values()]

    def instructions(self) -> list[str]:
        """Of the present episodes."""
        return [slot.env.instruction for slot in self.slots.values()]

    def save(self, rows: Sequence[int]) -> list[Frame]:
        """The states of some rows."""
        return [self.slots[row].get_state() for row in rows]

    def load(self, states: Mapping[int, Frame]) -> list[str]:
        """Put rows into states."""
        for row, state in states.items():
            self._show(row, self.slots[row].set_state(state))
        return self.instructions()

    def expert(self) -> list[np.ndarray]:
        """What an expert would do in every row."""
        return [np.asarray(slot.env.expert_action()) for slot in self.slots.values()]

    def render(self, rows: Sequence[int], camera: str | None, size: tuple[int, int]) -> list[np.ndarray]:
        """Images of some rows."""
        return [self.slots[row].env.render(camera, size) for row in rows]

    def become(self, row: int) -> None:
        """Its one environment is now that of another row, in the middle of the episode it is in."""
        [(before, slot)] = self.slots.items()
        self.rows, self.slots = [row], {row: slot}
        slot.nan_resets = int(self.arrays["nan_resets"][row])
        for key, values in self.arrays.items():
            if key.startswith("obs/") or key in ("success", "metrics"):
                values[row] = values[before]

    def close(self) -> None:
        """Close every environment."""
        for slot in self.slots.values():
            slot.env.close()

    def obey(self, order: str, *arguments: Any) -> Any:
        """Carry out an order by name."""
        method: Callable[..., Any] = getattr(self, order)
        return method(*arguments)

    def _show(self, row: int, frame: Frame) -> None:
        for key, value in frame.items():
            self.arrays[f"obs/{key}"][row] = value
        slot = self.slots[row]
        self.arrays["success"][row], self.arrays["metrics"][row] = slot.success, slot.metrics

    def _row(self, row: int) -> Row:
        return {name: values[row, ...] for name, values in self.arrays.items()}
