"""What legged terms see: one `View` per state, filled by each engine from its own arrays.

Functions take `xp` (numpy, torch or jax.numpy) and arrays with the environment first, return new arrays, and write
nothing in place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Array = Any
"""An array of the backend `xp`, environment first."""
Params = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class View:
    """A batch of legged robots after a control step. N environments, J joints, F feet.

    Attributes:
        lin_vel: of the base in its own frame, [N, 3], m/s.
        ang_vel: of the base in its own frame, [N, 3], rad/s.
        gravity: unit vector of gravity in the base frame, [N, 3]; (0, 0, -1) when level.
        height: of the base over the ground below it, [N], m.
        joint_pos: [N, J], rad.
        joint_vel: [N, J], rad/s.
        joint_acc: mean over the control step, [N, J], rad/s2.
        torque: of the last physics step, [N, J], N m.
        action: the step's action, [N, J].
        previous_action: the action before it, [N, J].
        command: forward, left and yaw velocity asked for in the step just made, [N, 3], m/s and rad/s.
        next_command: the same for the step to come.
        phase: of the gait clock, [N], 0 to 1.
        contact: a foot presses on something, bool [N, F].
        air_time: how long each foot had been in the air before this very state, [N, F], s; 0 for one on the ground.
        foot_speed: horizontal, [N, F], m/s.
        undesired: links other than feet that touch something, [N].
        friction: of the ground, [N, 1].
        ground: height of the ground around the base relative to the base, [N, P], m.
    """

    lin_vel: Array
    ang_vel: Array
    gravity: Array
    height: Array
    joint_pos: Array
    joint_vel: Array
    joint_acc: Array
    torque: Array
    action: Array
    previous_action: Array
    command: Array
    next_command: Array
    phase: Array
    contact: Array
    air_time: Array
    foot_speed: Array
    undesired: Array
    friction: Array
    ground: Array


def into_frame(xp: Any, quat: Array, vector: Array) -> Array:
    """World vectors [N, 3] in the frames of unit quaternions (w, x, y, z) [N, 4]."""
    w, x, y, z = (quat[:, i] for i in range(4))
    a, b, c = (vector[:, i] for i in range(3))
    return xp.stack(
        (
            (1 - 2 * (y * y + z * z)) * a + 2 * (x * y + w * z) * b + 2 * (x * z - w * y) * c,
            2 * (x * y - w * z) * a + (1 - 2 * (x * x + z * z)) * b + 2 * (y * z + w * x) * c,
            2 * (x * z + w * y) * a + 2 * (y * z - w * x) * b + (1 - 2 * (x * x + y * y)) * c,
        ),
        -1,
    )


def projected_gravity(xp: Any, quat: Array) -> Array:
    """The unit vector of gravity in the frames of unit quaternions, [N, 3]."""
    w, x, y, z = (quat[:, i] for i in range(4))
    return xp.stack((2 * (w * y - x * z), -2 * (y * z + w * x), 2 * (x * x + y * y) - 1), -1)


def yaw(xp: Any, quat: Array) -> Array:
    """Heading of unit quaternions, [N], rad."""
    w, x, y, z = (quat[:, i] for i in range(4))
    return xp.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))


def constant(xp: Any, values: Any, like: Array) -> Array:
    """`values` as an array of `like`'s dtype, on its device where `xp` has devices."""
    if xp.__name__ == "torch":
        return xp.as_tensor(values, dtype=like.dtype, device=like.device)
    return xp.asarray(values, dtype=like.dtype)


def as_number(xp: Any, flags: Array, like: Array) -> Array:
    """1 where true and 0 elsewhere, in `like`'s dtype."""
    return xp.where(flags, constant(xp, 1.0, like), constant(xp, 0.0, like))


def joint_targets(xp: Any, action: Array, params: Params) -> Array:
    """Where the joints are sent by an action, [N, J], rad."""
    return constant(xp, params["default_joint_pos"], action) + params["action_scale"] * action
