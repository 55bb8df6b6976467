"""Observation terms of legged robots, each `(xp, view, params) -> [N, width]`, in SI units without scaling."""

from __future__ import annotations

from typing import Any

from robo_rlft.envs.legged.view import Array, Params, View, as_number, constant


def ang_vel(xp: Any, view: View, params: Params) -> Array:
    """Angular velocity of the base in its own frame."""
    return view.ang_vel


def gravity(xp: Any, view: View, params: Params) -> Array:
    """Unit vector of gravity in the base frame."""
    return view.gravity


def command(xp: Any, view: View, params: Params) -> Array:
    """Forward, left and yaw velocity asked for in the step to come."""
    return view.next_command


def joint_pos(xp: Any, view: View, params: Params) -> Array:
    """Joint positions relative to the default pose."""
    return view.joint_pos - constant(xp, params["default_joint_pos"], view.joint_pos)


def joint_vel(xp: Any, view: View, params: Params) -> Array:
    """Joint velocities."""
    return view.joint_vel


def last_action(xp: Any, view: View, params: Params) -> Array:
    """The action of the last step."""
    return view.action


def clock(xp: Any, view: View, params: Params) -> Array:
    """Sine and cosine of the gait clock."""
    turn = 2.0 * 3.141592653589793 * view.phase
    return xp.stack((xp.sin(turn), xp.cos(turn)), -1)


def lin_vel(xp: Any, view: View, params: Params) -> Array:
    """Linear velocity of the base in its own frame."""
    return view.lin_vel


def height(xp: Any, view: View, params: Params) -> Array:
    """Height of the base over the ground."""
    return view.height[:, None]


def contact(xp: Any, view: View, params: Params) -> Array:
    """1 for each foot that presses on something."""
    return as_number(xp, view.contact, view.air_time)


def friction(xp: Any, view: View, params: Params) -> Array:
    """Friction coefficient of the ground."""
    return view.friction


def ground(xp: Any, view: View, params: Params) -> Array:
    """Heights of the ground around the base, relative to the base."""
    return view.ground
