"""Rotations and differential kinematics over a batch, for numpy and torch. Quaternions are (w, x, y, z)."""

from __future__ import annotations

from typing import Any

from robo_rlft.envs.genesis.task import Array


def product(xp: Any, a: Array, b: Array) -> Array:
    """Quaternion product, [N, 4]."""
    aw, ax, ay, az = (a[..., i] for i in range(4))
    bw, bx, by, bz = (b[..., i] for i in range(4))
    return xp.stack(
        (
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ),
        -1,
    )


def rotation_vector(xp: Any, quat: Array) -> Array:
    """Axis times angle of unit quaternions, [N, 3], rad; the shorter way round."""
    one = xp.ones_like(quat[..., :1])
    sign = xp.where(quat[..., :1] < 0.0, -one, one)
    w, v = sign * quat[..., :1], sign * quat[..., 1:]
    sine = xp.sqrt((v * v).sum(-1))[..., None]
    # 2 atan2(s, w) / s is 2 / w where s vanishes.
    ratio = 2.0 * xp.arctan2(sine, w) / xp.where(sine < 1e-6, xp.ones_like(sine), sine)
    return xp.where(sine < 1e-6, 2.0 / xp.where(w < 0.5, xp.ones_like(w), w), ratio) * v


def third_axis(xp: Any, quat: Array) -> Array:
    """The z axis of frames in world axes, [N, ..., 3]."""
    w, x, y, z = (quat[..., i] for i in range(4))
    return xp.stack((2.0 * (x * z + w * y), 2.0 * (y * z - w * x), 1.0 - 2.0 * (x * x + y * y)), -1)


def cross(xp: Any, a: Array, b: Array) -> Array:
    """Cross product along the last axis."""
    ax, ay, az = (a[..., i] for i in range(3))
    bx, by, bz = (b[..., i] for i in range(3))
    return xp.stack((ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx), -1)


def hinge_jacobian(xp: Any, anchors: Array, axes: Array, point: Array) -> Array:
    """Velocity of a point and angular velocity of its body per joint rate, [N, 6, J].

    Args:
        xp: array namespace.
        anchors: a point on each hinge, [N, J, 3], m.
        axes: of the hinges, unit vectors, [N, J, 3].
        point: [N, 3], m.
    """
    linear = cross(xp, axes, point[:, None] - anchors)
    return xp.concatenate((linear, axes), -1).swapaxes(1, 2)


def joint_step(xp: Any, jacobian: Array, motion: Array, posture: Array, damping: float) -> Array:
    """Joint displacements for a small motion of the tool (damped least squares), [N, J].

    Args:
        xp: array namespace.
        jacobian: [N, 6, J].
        motion: wanted, [N, 6].
        posture: displacement towards a posture, followed as far as it does not move the tool, [N, J].
        damping: the larger, the smaller the steps near a singularity.
    """
    across = jacobian.swapaxes(1, 2)
    eye = xp.eye(6, dtype=jacobian.dtype, **({"device": jacobian.device} if xp.__name__ == "torch" else {}))
    left = (motion[:, :, None] - jacobian @ posture[:, :, None]).reshape(-1, 6, 1)
    return (across @ xp.linalg.solve(jacobian @ across + damping**2 * eye, left))[:, :, 0] + posture
