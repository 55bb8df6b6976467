"""End-effector control: the action moves a commanded pose, and the arm follows it like a spring.

A pose is (x, y, z, rx, ry, rz) of the tool centre point in base axes: position in metres and the rotation vector from
"pointing down" in radians. The command is kept within a workspace and within a bounded lead over the measured pose, so
that it never winds up against a contact. The model's first six actuators (`arm.xml`) are the spring: a Cartesian
impedance (Hogan 1985) evaluated at every substep, whose lengths and velocities are the measured pose and its rate.
All functions are pure and batched.
"""

from __future__ import annotations

from typing import Any

from robo_rlft.envs.mujoco.task import Array, Observation, Params, State
from robo_rlft.spec import ActionMeaning

POSE_NAMES = ("x", "y", "z", "rx", "ry", "rz")
POSE_UNITS = ("m", "m", "m", "rad", "rad", "rad")
VELOCITY_NAMES = ("vx", "vy", "vz", "wx", "wy", "wz")
RATE_UNITS = ("m/s", "m/s", "m/s", "rad/s", "rad/s", "rad/s")
ARM_JOINTS = 7
FIELDS = ("actuator_length", "actuator_velocity")
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


def tool_pose(xp: Any, state: State, params: Params) -> Array:
    """Measured pose of the tool centre point, [N, 6]."""
    return state.data["actuator_length"][:, :6]


def tool_velocity(xp: Any, state: State, params: Params) -> Array:
    """Linear and angular velocity of the tool centre point in base axes, [N, 6]."""
    return state.data["actuator_velocity"][:, :6]


def command_lead(xp: Any, state: State, params: Params) -> Array:
    """How far the command is ahead of the tool, [N, 6]: the force it presses with, over the spring's stiffness."""
    return state.variables["command"] - tool_pose(xp, state, params)


PROPRIO_KEY = "proprio"
"""Observation group of what the arm knows of itself, for policies that see the rest in images."""


def proprioception() -> tuple[Observation, ...]:
    """Pose, velocity and lead of the tool as the group `proprio`."""
    return (
        Observation("tool_pose", tool_pose, tuple(f"tool_{n}" for n in POSE_NAMES), POSE_UNITS, PROPRIO_KEY),
        Observation(
            "tool_velocity", tool_velocity, tuple(f"tool_{n}" for n in VELOCITY_NAMES), RATE_UNITS, PROPRIO_KEY
        ),
        Observation("lead", command_lead, tuple(f"lead_{n}" for n in POSE_NAMES), POSE_UNITS, PROPRIO_KEY),
    )


def moved_command(xp: Any, state: State, action: Array, params: Params) -> Array:
    """The command after one action: shifted, kept within the workspace, then within its lead over the measured pose.

    Args:
        xp: array namespace.
        state: before the step; `variables["command"]` is the last command, [N, 6].
        action: [N, >= 6] in [-1, 1].
        params: `CONTROL_PARAMS`.

    Returns:
        The new command, [N, 6].
    """
    measured = tool_pose(xp, state, params)
    steps = constant(xp, 3 * (params["step_m"],) + 3 * (params["step_rad"],), measured)
    lead = constant(xp, 3 * (params["lead_m"],) + 3 * (params["lead_rad"],), measured)
    low, high = (constant(xp, params[f"workspace_{end}"], measured) for end in ("low", "high"))
    wished = state.variables["command"] + steps * action[:, :6]
    inside = xp.minimum(xp.maximum(wished, low), high)
    return xp.minimum(xp.maximum(inside, measured - lead), measured + lead)


def moved_pose(params: Params, gripper: tuple[float, float] | None = None) -> ActionMeaning:
    """What an action is: the change of the commanded pose in one control step.

    Args:
        params: `CONTROL_PARAMS`.
        gripper: (scale, offset) of a further entry, the distance of each finger from the middle, m.
    """
    scale, offset = [*3 * [params["step_m"]], *3 * [params["step_rad"]]], 6 * [0.0]
    if gripper is not None:
        scale, offset = [*scale, gripper[0]], [*offset, gripper[1]]
    return ActionMeaning("cartesian", tuple(map(float, scale)), tuple(offset), frame="base")


def constant(xp: Any, values: Any, like: Array) -> Array:
    """`values` as an array of `like`'s dtype, on its device where arrays have one."""
    device = getattr(like, "device", None)
    return xp.asarray(values, dtype=like.dtype, **({} if device is None else {"device": device}))
