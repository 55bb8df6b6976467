"""Several environments of one kind that take turns as the variants of one."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from robo_rlft.envs.pool.single import Frame, SingleEnv, SingleFactory

_ROOM = 3
"""Bytes of any member's state, as a multiple of the first one's."""


class Bundle:
    """Makes each member when it is first needed, and keeps it.

    Args:
        makers: one per variant.
    """

    def __init__(self, makers: Sequence[SingleFactory]) -> None:
        self._makers = tuple(makers)
        self._made: dict[int, SingleEnv] = {}
        self.index = 0
        self.turn_to(0)
        self._room = _ROOM * len(_stored(self.present.get_state())) if self.present.fidelity != "none" else 0

    @property
    def present(self) -> SingleEnv:
        """The member whose turn it is."""
        return self._made[self.index]

    def turn_to(self, variant: int) -> SingleEnv:
        """Give a member its turn."""
        if variant not in self._made:
            self._made[variant] = self._makers[variant]()
        self.index = variant
        return self.present

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
            self.turn_to(index).set_state(dict(arrays))

    def close(self) -> None:
        """Close every member."""
        for env in self._made.values():
            env.close()


def _stored(state: Frame) -> bytes:
    file = io.BytesIO()
    np.savez(file, **state)  # pyright: ignore[reportArgumentType]
    return file.getvalue()
