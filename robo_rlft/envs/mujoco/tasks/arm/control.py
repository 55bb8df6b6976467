"""End-effector control: a 6-D pose command moved by the action, followed through differential inverse kinematics.

A pose is (x, y, z, roll, pitch, yaw) of the tool centre point in the frame of the arm's base: metres and radians,
with R = Rz(yaw) Ry(pitch) Rx(roll) R_down, where R_down points the tool at the table. Commands stay near pointing
down (|roll|, |pitch| well below pi/2), where these three angles are as good as any other coordinates.

The command is clipped to a workspace and to a bounded lead over the measured pose, so that it never winds up against
a contact; the joint servos turn that lead into a bounded force. All functions are pure and batched.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robo_rlft.envs.mujoco.task import Array, Params, State

POSE_NAMES = ("x", "y", "z", "roll", "pitch", "yaw")
POSE_UNITS = ("m", "m", "m", "rad", "rad", "rad")
ARM_JOINTS = 7
TCP_SITE = 0
"""The models of this package have one site first: the tool centre point."""
FIELDS = ("qpos", "qvel", "site_xpos", "site_xmat", "xanchor", "xaxis")
"""MjData fields the functions of this file read."""

CONTROL_PARAMS: Params = {
    "workspace_low": (0.39, -0.11, 0.002, -0.2, -0.2, -0.6),
    "workspace_high": (0.61, 0.11, 0.25, 0.2, 0.2, 0.6),
    "step_m": 0.01,
    "step_rad": 0.05,
    "lead_m": 0.02,
    "lead_rad": 0.15,
}
"""Defaults: bounds of the command, its change per control step at |action| = 1, and its greatest lead per entry."""

DLS_DAMPING = 0.03
"""Damping of the least-squares inverse, in the units of the Jacobian's singular values (Wampler 1986)."""
POSTURE_GAIN = 0.2
"""Share of the way to the home posture asked for per control step within the Jacobian's null space."""


def end_effector_control(
    xp: Any, state: State, action: Array, params: Params, home: tuple[float, ...]
) -> Mapping[str, Array]:
    """Move the command by the action's first six entries and follow it with the joints.

    Args:
        xp: array namespace.
        state: before the step; `variables["command"]` is the last pose command, [N, 6].
        action: [N, >= 6] in [-1, 1].
        params: `CONTROL_PARAMS`.
        home: joint angles the null space is pulled towards, rad, 7 of them.

    Returns:
        `command` [N, 6] and `ctrl` [N, 7], targets of the joint servos in radians.
    """
    measured = tool_pose(xp, state)
    command = move_command(xp, state.variables["command"], measured, action, params)
    return {"command": command, "ctrl": joint_targets(xp, state, measured, command, home)}


def tool_pose(xp: Any, state: State) -> Array:
    """Measured pose of the tool centre point, [N, 6]."""
    r = state.data["site_xmat"][:, TCP_SITE]
    # R R_down^T with R_down = diag(1, -1, -1) flips the last two columns.
    angles = (
        xp.arctan2(-r[:, 7], -r[:, 8]),
        xp.arcsin(xp.clip(-r[:, 6], -1.0, 1.0)),
        xp.arctan2(r[:, 3], r[:, 0]),
    )
    return xp.concatenate((state.data["site_xpos"][:, TCP_SITE], xp.stack(angles, -1)), -1)


def move_command(xp: Any, command: Array, measured: Array, action: Array, params: Params) -> Array:
    """The command after one action: shifted, kept within the workspace, then within its lead over `measured`."""
    steps = constant(xp, 3 * (params["step_m"],) + 3 * (params["step_rad"],), measured)
    lead = constant(xp, 3 * (params["lead_m"],) + 3 * (params["lead_rad"],), measured)
    low = constant(xp, params["workspace_low"], measured)
    high = constant(xp, params["workspace_high"], measured)
    wished = xp.minimum(xp.maximum(command + steps * action[:, :6], low), high)
    return xp.minimum(xp.maximum(wished, measured - lead), measured + lead)


def command_lead(xp: Any, state: State, params: Params) -> Array:
    """How far the command is ahead of the tool, [N, 6]: near zero in free space, the pressing force in contact."""
    return state.variables["command"] - tool_pose(xp, state)


def joint_targets(xp: Any, state: State, measured: Array, command: Array, home: tuple[float, ...]) -> Array:
    """Joint angles that bring the tool from `measured` to `command`, to first order, [N, 7].

    Damped least squares with a secondary posture z: q + z + J^T (J J^T + d^2 I)^-1 (e - J z).
    """
    q = state.data["qpos"][:, :ARM_JOINTS]
    jacobian = tool_jacobian(xp, state)
    transposed = xp.swapaxes(jacobian, 1, 2)
    posture = POSTURE_GAIN * (constant(xp, home, q) - q)
    error = pose_error(xp, measured, command) - (jacobian @ posture[:, :, None])[:, :, 0]
    normal = jacobian @ transposed + DLS_DAMPING**2 * constant(xp, _IDENTITY, q)
    step = transposed @ xp.linalg.solve(normal, error[:, :, None])
    return q + posture + step[:, :, 0]


def pose_error(xp: Any, measured: Array, command: Array) -> Array:
    """Displacement and rotation vector in base axes from `measured` to `command`, [N, 6], to first order."""
    pitch, yaw = measured[:, 4], measured[:, 5]
    difference = command - measured
    droll, dpitch, dyaw = difference[:, 3], difference[:, 4], difference[:, 5]
    cos_pitch, cos_yaw, sin_yaw = xp.cos(pitch), xp.cos(yaw), xp.sin(yaw)
    # Angular velocity of roll-pitch-yaw rates: Rz Ry ex droll + Rz ey dpitch + ez dyaw.
    rotation = (
        cos_yaw * cos_pitch * droll - sin_yaw * dpitch,
        sin_yaw * cos_pitch * droll + cos_yaw * dpitch,
        dyaw - xp.sin(pitch) * droll,
    )
    return xp.concatenate((difference[:, :3], xp.stack(rotation, -1)), -1)


def tool_jacobian(xp: Any, state: State) -> Array:
    """Geometric Jacobian of the tool centre point, [N, 6, 7]: linear rows, then angular ones, in base axes."""
    axis = state.data["xaxis"][:, :ARM_JOINTS]
    arm = state.data["site_xpos"][:, TCP_SITE, None, :] - state.data["xanchor"][:, :ARM_JOINTS]
    (ax, ay, az), (px, py, pz) = _columns(axis), _columns(arm)
    return xp.stack((ay * pz - az * py, az * px - ax * pz, ax * py - ay * px, ax, ay, az), 1)


def constant(xp: Any, values: Any, like: Array) -> Array:
    """`values` as an array of `like`'s dtype, on its device where arrays have one."""
    device = getattr(like, "device", None)
    return xp.asarray(values, dtype=like.dtype, **({} if device is None else {"device": device}))


def _columns(vectors: Array) -> tuple[Array, Array, Array]:
    return vectors[..., 0], vectors[..., 1], vectors[..., 2]


_IDENTITY = tuple(tuple(float(i == j) for j in range(6)) for i in range(6))
