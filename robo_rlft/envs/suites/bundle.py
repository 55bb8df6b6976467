"""Several environments of one kind that take turns as the variants of one."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from robo_rlft.envs.pool.single import Frame, Outcome, SingleEnv, SingleFactory

_ROOM = 3
"""Bytes of any member's state, as a multiple of the first one's."""


class Bundle(SingleEnv):
    """Makes each member when it is first needed, and keeps it. What they offer is what the first one does.

    Args:
        variants: names of the members.
        makers: one per variant.
    """

    def __init__(self, variants: Sequence[str], makers: Sequence[SingleFactory]) -> None:
        self.variants = tuple(variants)
        self._makers = tuple(makers)
        self._made: dict[int, SingleEnv] = {}
        self.index = 0
        self._turn_to(0)
        first = self.present
        self.robot, self.fidelity, self.metrics = first.robot, first.fidelity, first.metrics
        self.has_success, self.has_expert = first.has_success, first.has_expert
        self._room = _ROOM * len(_stored(first.get_state())) if first.fidelity != "none" else 0

    @property
    def present(self) -> SingleEnv:
        """The member whose turn it is."""
        return self._made[self.index]

    @property
    def instruction(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """See `SingleEnv`."""
        return self.present.instruction

    def reset(self, seed: int, variant: int) -> None:
        """See `SingleEnv.reset`."""
        self._turn_to(variant)
        self.present.reset(seed, 0)

    def step(self, action: Float[np.ndarray, " action"]) -> Outcome:
        """See `SingleEnv.step`."""
        return self.present.step(action)

    def observe(self) -> Frame:
        """See `SingleEnv.observe`."""
        return self.present.observe()

    def expert_action(self) -> Float[np.ndarray, " action"]:
        """See `SingleEnv.expert_action`."""
        return self.present.expert_action()

    def get_state(self) -> Frame:
        """Whose turn it is, and that member's state, in one array of a shape that all members share."""
        stored = _stored(self.present.get_state())
        if len(stored) > self._room:
            raise RuntimeError(f"variant {self.index} has a state of {len(stored)} bytes, beyond {self._room}")
        state = np.zeros(self._room, np.uint8)
        state[: len(stored)] = np.frombuffer(stored, np.uint8)
        return {"member": np.array([self.index, len(stored)]), "state": state}

    def set_state(self, state: Frame) -> None:
        """Inverse of `get_state`."""
        index, size = (int(v) for v in state["member"])
        with np.load(io.BytesIO(state["state"][:size].tobytes())) as arrays:
            self._turn_to(index)
            self.present.set_state(dict(arrays))

    def render(self, camera: str | None, size: tuple[int, int]) -> np.ndarray:
        """See `SingleEnv.render`."""
        return self.present.render(camera, size)

    def close(self) -> None:
        """Close every member."""
        for env in self._made.values():
            env.close()

    def _turn_to(self, variant: int) -> None:
        if variant not in self._made:
            self._made[variant] = self._makers[variant]()
        self.index = variant


def _stored(state: Frame) -> bytes:
    file = io.BytesIO()
    np.savez(file, **state)  # pyright: ignore[reportArgumentType]
    return file.getvalue()
