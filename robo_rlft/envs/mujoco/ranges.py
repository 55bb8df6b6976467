"""Ranges of state fields that a task must stay within: one text for numpy and for compiled code.

A termination that is an `Outside` lets a chunk in compiled code stop each environment at its own end; any other
function works too, and is evaluated after the chunk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from robo_rlft.envs.mujoco.task import Array, Params, State


@dataclass(frozen=True, eq=False)
class Range:
    """Entries of a field that must lie between two bounds.

    Attributes:
        field: of the physics state (`qpos`, `qvel` ...), [N, width].
        bounds: name of the parameter that holds (low, high).
        start: first entry.
        stop: entry after the last; None takes all from `start`.
        closed: the bounds themselves are inside.
    """

    field: str
    bounds: str
    start: int = 0
    stop: int | None = None
    closed: bool = False

    @classmethod
    def at(cls, field: str, entry: int, bounds: str, closed: bool = False) -> Range:
        """The range of a single entry."""
        return cls(field, bounds, entry, entry + 1, closed)

    def holds(self, state: State, params: Params) -> Array:
        """Where all entries are inside, bool [N]; a NaN never is."""
        low, high = params[self.bounds]
        single = self.stop == self.start + 1
        values = state.data[self.field][:, self.start if single else slice(self.start, self.stop)]
        inside = (low <= values) & (values <= high) if self.closed else (low < values) & (values < high)
        return inside if single else inside.all(-1)


@dataclass(frozen=True)
class Within:
    """Condition: every range holds."""

    ranges: tuple[Range, ...]

    def __call__(self, xp: Any, state: State, params: Params) -> Array:
        """See `ConditionFn`."""
        return _inside(self.ranges, state, params)


@dataclass(frozen=True)
class Outside:
    """Condition: some range does not hold."""

    ranges: tuple[Range, ...]

    def __call__(self, xp: Any, state: State, params: Params) -> Array:
        """See `ConditionFn`."""
        return ~_inside(self.ranges, state, params)


def _inside(ranges: tuple[Range, ...], state: State, params: Params) -> Array:
    """Worked out once per state: the same ranges often both end an episode and pay for staying alive."""
    if ranges not in state.memo:
        inside = ranges[0].holds(state, params)
        for other in ranges[1:]:
            inside = inside & other.holds(state, params)
        state.memo[ranges] = inside
    return state.memo[ranges]
