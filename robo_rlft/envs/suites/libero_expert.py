"""A scripted expert of LIBERO's tasks that put one thing on or into another.

It sees where things are, and what it does is a function of that alone: hover over the thing with the gripper open,
lower, close, lift, carry, lower, open. Its action is a step of the hand towards a waypoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import mujoco
import numpy as np
from jaxtyping import Float

Point = Float[np.ndarray, "3"]
_REACH_M = 0.05
"""Longest step of the hand that an action can ask for, along each axis."""
_GAIN = 2.5
"""Of the step asked for, the controller makes about this fraction's inverse before the next."""
_UP = np.array([0.0, 0.0, 0.10])
_CARRY_M = 0.20
"""Height of what is carried over its goal."""
_SLACK_M = 0.03
_ALIGNED_M, _NEAR_M, _OVER_M = 0.015, 0.035, 0.025
_INTO_M, _ONTO_M = 0.05, 0.015
_DEPTH_M, _RIM_DEPTH_M = 0.03, 0.015
"""Of the hand below the top of what it takes."""
_TURNED_RAD = 0.08
_WIDE_M = 0.074
"""Between the fingers of an open gripper there are 0.08 m."""
_AT_REST_MPS = 0.02
_OPEN, _CLOSE = -1.0, 1.0


_RIM_M = {"akita_black_bowl": 0.05, "white_bowl": 0.05, "plate": 0.08}
"""Things wider than the gripper opens are taken by their rim, so far from the middle along the fingers' way."""
_DOWN = np.array([0.0, 0.0, -1.0])
_TURN_RAD = 0.5
"""Largest turn of the hand that an action can ask for, about each axis."""


class PickAndPlace:
    """Carries one thing to its goal.

    Args:
        env: LIBERO's environment.
        thing: what is carried.
        goal: what it is put on, or the region that it is put into.
    """

    def __init__(self, env: Any, thing: str, goal: str) -> None:
        self._env, self._thing, self._goal = env, thing, goal
        self._rim_m = _RIM_M.get(thing.rpartition("_")[0], 0.0)
        self._box = Box.of(env.sim.model._model, env.env.obj_body_id[thing])

    @classmethod
    def of(cls, env: Any) -> PickAndPlace | None:
        """The expert of a task, where its goal is of the kind that it can reach."""
        goals = env.env.parsed_problem["goal_state"]
        if len(goals) != 1 or goals[0][0] not in ("on", "in") or goals[0][1] not in env.env.objects_dict:
            return None
        return cls(env, goals[0][1], goals[0][2]) if goals[0][2] in env.env.object_states_dict else None

    def action(self) -> Float[np.ndarray, " action"]:
        """The next action, [7]."""
        hand, thing, goal = self._hand(), self._position(self._thing), self._position(self._goal)
        taken, along = self._grip(hand, thing)
        held, over = self._holds(hand, taken), _apart(thing, goal) < _OVER_M
        turn = np.zeros(3)
        if held:
            waypoint, close = self._carry(hand, thing, goal), not (over and self._arrived(thing, goal))
        elif over:
            waypoint, close = hand + _UP, False
        else:
            turn = self._turn(along)
            close = self._grasps(hand, taken)
            ready = _apart(hand, taken) < _ALIGNED_M and np.abs(turn).max() < _TURNED_RAD
            waypoint = taken if close or ready else taken + _UP
        move = np.clip(_GAIN * (waypoint - hand) / _REACH_M, -1.0, 1.0)
        return np.concatenate([move, np.clip(turn / _TURN_RAD, -1.0, 1.0), [_CLOSE if close else _OPEN]])

    def _grip(self, hand: Point, thing: Point) -> tuple[Point, float]:
        """Where the hand takes the thing, and the direction that its fingers close along, as an angle about z."""
        turned = self._rotation(self._env.env.obj_body_id[self._thing])
        centre, half, along = self._box.seen(turned)
        if self._rim_m:
            side = 1.0 if hand[1] >= thing[1] else -1.0
            return thing + np.array([0.0, side * self._rim_m, centre[2] + half - _RIM_DEPTH_M]), np.pi / 2
        return thing + centre + np.array([0.0, 0.0, max(0.0, half - _DEPTH_M)]), along

    def _turn(self, along: float) -> Point:
        """The hand's turn that points it down and its fingers along a direction; nothing once that is so."""
        axes = self._env.sim.data.site_xmat[self._env.robots[0].eef_site_id].reshape(3, 3)
        now = np.arctan2(axes[1, 0], axes[0, 0])
        yaw = (along - now + np.pi / 2) % np.pi - np.pi / 2  # fingers are alike: half a turn is none
        turn = np.cross(axes[:, 2], _DOWN) + np.array([0.0, 0.0, yaw])
        return turn if np.abs(turn).max() > _TURNED_RAD / 2 else np.zeros(3)

    def _carry(self, hand: Point, thing: Point, goal: Point) -> Point:
        """Up, across, and down onto the goal, for the hand that holds the thing."""
        height = goal[2] + _CARRY_M
        if _apart(thing, goal) < _ALIGNED_M:
            wished = goal
        elif thing[2] < height - _SLACK_M:
            wished = np.array([thing[0], thing[1], height + _SLACK_M])
        else:
            wished = np.array([goal[0], goal[1], height])
        return hand + wished - thing

    def _arrived(self, thing: Point, goal: Point) -> bool:
        """Low enough to let go."""
        states = self._env.env.object_states_dict
        into = states[self._goal].object_state_type == "site"
        touches = not into and states[self._thing].check_contact(states[self._goal])
        return touches or thing[2] - goal[2] < (_INTO_M if into else _ONTO_M)

    def _grasps(self, hand: Point, taken: Point) -> bool:
        """Where to close, and to go on closing."""
        distance = float(np.linalg.norm(hand - taken))
        return distance < _ALIGNED_M or (distance < _NEAR_M and self._width() < _WIDE_M)

    def _holds(self, hand: Point, taken: Point) -> bool:
        """The fingers have come to rest on it."""
        robot = self._env.robots[0]
        speed = np.abs(self._env.sim.data.qvel[robot._ref_gripper_joint_vel_indexes]).max()
        return bool(np.linalg.norm(hand - taken) < _NEAR_M and self._width() < _WIDE_M and speed < _AT_REST_MPS)

    def _rotation(self, body: int) -> Float[np.ndarray, "3 3"]:
        return np.array(self._env.sim.data.body_xmat[body]).reshape(3, 3)

    def _hand(self) -> Point:
        return np.array(self._env.sim.data.site_xpos[self._env.robots[0].eef_site_id])

    def _width(self) -> float:
        robot = self._env.robots[0]
        return float(np.abs(self._env.sim.data.qpos[robot._ref_gripper_joint_pos_indexes]).sum())

    def _position(self, name: str) -> Point:
        return np.array(self._env.env.object_states_dict[name].get_geom_state()["pos"])


@dataclass(frozen=True)
class Box:
    """What encloses a body, along its own axes.

    Attributes:
        centre: of the box, from the body's origin, m.
        half: extents, m.
    """

    centre: Point
    half: Point

    @classmethod
    def of(cls, model: mujoco.MjModel, body: int) -> Box:
        """Around all geoms of a body and of those fixed to it."""
        corners = [_corners(model, g) for g in range(model.ngeom) if model.body_rootid[model.geom_bodyid[g]] == body]
        points = np.concatenate(corners)
        low, high = points.min(0), points.max(0)
        return cls((low + high) / 2, (high - low) / 2)

    def seen(self, turned: Float[np.ndarray, "3 3"]) -> tuple[Point, float, float]:
        """In the world: centre, half of its height, and the direction of its shorter side on the table, about z."""
        upright = int(np.argmax(np.abs(turned[2])))
        flat = [i for i in range(3) if i != upright]
        short = min(flat, key=lambda i: self.half[i])
        return turned @ self.centre, float(self.half[upright]), float(np.arctan2(turned[1, short], turned[0, short]))


def _corners(model: mujoco.MjModel, geom: int) -> Float[np.ndarray, "8 3"]:
    """Of a geom's box, along its body's axes. Bodies fixed to the root are welded where they are, without turns."""
    centre, half = model.geom_aabb[geom, :3], model.geom_aabb[geom, 3:]
    corners = centre + half * np.array(list(product((-1.0, 1.0), repeat=3)))
    turned = np.empty(9)
    mujoco.mju_quat2Mat(turned, model.geom_quat[geom])
    moved = model.geom_pos[geom] + corners @ turned.reshape(3, 3).T
    body = int(model.geom_bodyid[geom])
    return moved + (model.body_pos[body] if body != model.body_rootid[body] else 0.0)


def _apart(a: Point, b: Point) -> float:
    """Distance seen from above."""
    return float(np.linalg.norm(a[:2] - b[:2]))
