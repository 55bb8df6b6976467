"""Velocity tracking on any engine: its state as a `View`, the terms on it, and the start of an episode."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Float

from robo_rlft.envs.legged import memory
from robo_rlft.envs.legged.robots import LeggedRobot
from robo_rlft.envs.legged.tables import PERIOD_S, Observed, Paid, fallen
from robo_rlft.envs.legged.terrain import Terrain, height_at, scan
from robo_rlft.envs.legged.view import Array, Params, View, yaw

TOUCH_N = 1.0
"""A foot or a link touches from this force on."""
EPISODE_S = 20.0
START_GAP_M = 0.01
"""Air below the feet at the start, for joints that begin a little off the default pose."""
START_PARAMS: Params = {"start_joint_noise": 0.1, "start_velocity": 0.2}
"""Half widths of the start's uniform noise: joint positions, rad, and the base's velocities, m/s and rad/s."""
GroundFn = Callable[[Params], Terrain]
"""The terrain that parameters mean."""
_VIEW, _ERRORS = "legged view", "legged errors"


class Seen(Protocol):
    """An engine's state, as far as it is common to all."""

    @property
    def variables(self) -> Mapping[str, Array]:
        """What `memory` keeps."""
        ...

    @property
    def memo(self) -> dict[Any, Array]:
        """What terms have worked out from this very state."""
        ...


class Sight(ABC):
    """The terms of `legged.tables` as terms of an engine: they see its state through `look`."""

    @abstractmethod
    def look(self, xp: Any, state: Any, params: Params) -> View:
        """The view of a state."""

    def __call__(self, xp: Any, state: Seen, params: Params) -> View:
        """The view of a state, made once."""
        if _VIEW not in state.memo:
            state.memo[_VIEW] = self.look(xp, state, params)
        return state.memo[_VIEW]

    def observation(self, term: Observed) -> Callable[[Any, Any, Params], Array]:
        """An observation term of the engine."""
        return lambda xp, state, params: term.fn(xp, self(xp, state, params), params)

    def reward(self, term: Paid) -> Callable[[Any, Any, Array, Params], Array]:
        """A reward term of the engine."""
        return lambda xp, state, action, params: term.fn(xp, self(xp, state, params), params)

    def fallen(self, xp: Any, state: Seen, params: Params) -> Array:
        """The episode's end."""
        return fallen(xp, self(xp, state, params), params)

    def tracked(self, xp: Any, state: Seen, params: Params) -> Array:
        """The robot has followed its commands for `success_s`, bool [N]."""
        steps = round(params["success_s"] / PERIOD_S)
        followed = self.velocity_error(xp, state, params) <= params["success_velocity"]
        return (state.variables["steps"] == steps) & followed

    def velocity_error(self, xp: Any, state: Seen, params: Params) -> Array:
        """Mean error of the velocity in the plane, [N], m/s."""
        return self._errors(xp, state, params)[0]

    def yaw_error(self, xp: Any, state: Seen, params: Params) -> Array:
        """Mean error of the yaw rate, [N], rad/s."""
        return self._errors(xp, state, params)[1]

    def remembered(self, xp: Any, state: Seen, action: Array, params: Params) -> dict[str, Array]:
        """The episode's memory for a control step that is about to be made."""
        return memory.carry(xp, state.variables, self(xp, state, params), action, params, PERIOD_S)

    def _errors(self, xp: Any, state: Seen, params: Params) -> tuple[Array, Array]:
        if _ERRORS not in state.memo:
            state.memo[_ERRORS] = memory.mean_errors(xp, state.variables, self(xp, state, params))
        return state.memo[_ERRORS]


def below_and_around(
    xp: Any, ground: GroundFn | None, place: Array, quat: Array, params: Params
) -> tuple[Array, Array]:
    """Height of a base over the ground, [N], and of the ground around it relative to it, [N, P], m.

    Args:
        xp: array namespace.
        ground: the terrain, None on a plane.
        place: of the base, [N, 3], m.
        quat: of the base, [N, 4].
        params: of the task.
    """
    if ground is None:
        return place[:, 2], place[:, :0]
    terrain, base = ground(params), place[:, 2]
    around = scan(xp, terrain, place[:, :2], yaw(xp, quat)) - base[:, None]
    return base - height_at(xp, terrain, place[:, :2]), around


class Start(NamedTuple):
    """How an episode begins.

    Attributes:
        pose: of the base: position, m, and quaternion.
        rates: of the base: linear in world axes, m/s, angular in its own, rad/s.
        joints: positions, rad.
        kept: see `memory.begin`.
    """

    pose: Float[np.ndarray, " 7"]
    rates: Float[np.ndarray, " 6"]
    joints: Float[np.ndarray, " joint"]
    kept: Mapping[str, np.ndarray]


def draw_start(rng: np.random.Generator, robot: LeggedRobot, ground: GroundFn | None, params: Params) -> Start:
    """Near the default pose, heading anywhere, on the plane or on the tile of the episode."""
    default = np.array(params["default_joint_pos"])
    kept = memory.begin(rng, params, len(robot.joints), len(robot.feet))
    heading = rng.uniform(-np.pi, np.pi) / 2
    noise = params["start_joint_noise"] * rng.uniform(-1.0, 1.0, len(default))
    rates = params["start_velocity"] * rng.uniform(-1.0, 1.0, 6)
    x, y, z = _place(rng, ground, params)
    joints = np.clip(default + noise, params["joint_low"], params["joint_high"])
    stand = z + params["stand_height"] + START_GAP_M
    return Start(np.array([x, y, stand, np.cos(heading), 0.0, 0.0, np.sin(heading)]), rates, joints, kept)


def _place(rng: np.random.Generator, ground: GroundFn | None, params: Params) -> tuple[float, float, float]:
    if ground is None:
        return 0.0, 0.0, 0.0
    terrain = ground(params)
    spot = terrain.origins[params["tile"]] + rng.uniform(-1.0, 1.0, 2)
    return float(spot[0]), float(spot[1]), float(terrain.highest_around(spot))
