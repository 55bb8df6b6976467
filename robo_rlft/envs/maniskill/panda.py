"""The Panda arm's geometry: how its hand moves when its joints do."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

# Of each joint's frame in the one before: rotation about x, then translation. The axis of each joint is its z.
_TURN = np.array([0.0, -1.0, 1.0, 1.0, -1.0, 1.0, 1.0]) * np.pi / 2
_SHIFT = np.array(
    [
        (0.0, 0.0, 0.333),
        (0.0, 0.0, 0.0),
        (0.0, -0.316, 0.0),
        (0.0825, 0.0, 0.0),
        (-0.0825, 0.384, 0.0),
        (0.0, 0.0, 0.0),
        (0.088, 0.0, 0.0),
    ]
)
_TOOL = 0.107 + 0.1034
"""From the last joint along its axis to the point between the fingers, m."""


def jacobian(qpos: Float[np.ndarray, "arm 7"]) -> Float[np.ndarray, "arm 6 7"]:
    """Linear (m/rad) and angular velocity of the point between the fingers per joint velocity, in the base's frame."""
    turn, place = np.broadcast_to(np.eye(3), (len(qpos), 3, 3)), np.zeros((len(qpos), 3))
    axes, places = [], []
    for joint, (angle, shift) in enumerate(zip(_TURN, _SHIFT, strict=True)):
        place = place + turn @ shift
        turn = turn @ _about_x(angle) @ _about_z(qpos[:, joint])
        axes.append(turn[:, :, 2])
        places.append(place)
    tool = place + turn[:, :, 2] * _TOOL
    linear = [np.cross(axis, tool - at) for axis, at in zip(axes, places, strict=True)]
    return np.concatenate((np.stack(linear, axis=2), np.stack(axes, axis=2)), axis=1)


def joint_step(
    qpos: Float[np.ndarray, "arm 7"], twist: Float[np.ndarray, "arm 6"], damping: float = 0.05
) -> Float[np.ndarray, "arm 7"]:
    """The small joint motion that moves the hand by `twist` (m, rad), damped near singular poses."""
    matrix = jacobian(qpos)
    squared = matrix @ matrix.transpose(0, 2, 1) + damping**2 * np.eye(6)
    return (matrix.transpose(0, 2, 1) @ np.linalg.solve(squared, twist[:, :, None]))[:, :, 0]


def _about_x(angle: float) -> Float[np.ndarray, "3 3"]:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])


def _about_z(angle: Float[np.ndarray, " arm"]) -> Float[np.ndarray, "arm 3 3"]:
    c, s, zero = np.cos(angle), np.sin(angle), np.zeros_like(angle)
    return np.stack((c, -s, zero, s, c, zero, zero, zero, zero + 1.0), axis=1).reshape(-1, 3, 3)
