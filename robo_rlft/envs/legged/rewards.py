"""Reward terms of velocity tracking, as the field uses them (Rudin et al. 2022, "Learning to walk in minutes").

Each is `(xp, view, params) -> [N]`; costs are positive and get a negative weight in the table.
"""

from __future__ import annotations

from typing import Any

from robo_rlft.envs.legged.view import Array, Params, View, as_number, constant

REWARD_PARAMS: Params = {
    "tracking_sigma": 0.25,
    "air_time_s": 0.2,
    "soft_limit": 0.9,
    "moving": 0.1,
    "stance_share": 0.55,
}
"""Width of the tracking rewards (m2/s2 and rad2/s2), the time in the air from which a step pays, the share of a joint's
range beyond which it costs, the command from which a robot is asked to move, and the share of a gait on the ground."""


def track_velocity(xp: Any, view: View, params: Params) -> Array:
    """exp(-|v_xy - command_xy|^2 / sigma)."""
    off = view.command[:, :2] - view.lin_vel[:, :2]
    return xp.exp(-(off * off).sum(-1) / params["tracking_sigma"])


def track_yaw(xp: Any, view: View, params: Params) -> Array:
    """exp(-(yaw rate - command)^2 / sigma)."""
    off = view.command[:, 2] - view.ang_vel[:, 2]
    return xp.exp(-(off * off) / params["tracking_sigma"])


def alive(xp: Any, view: View, params: Params) -> Array:
    """1."""
    return 0.0 * view.height + 1.0


def vertical_velocity(xp: Any, view: View, params: Params) -> Array:
    """v_z^2."""
    return view.lin_vel[:, 2] * view.lin_vel[:, 2]


def roll_pitch_rate(xp: Any, view: View, params: Params) -> Array:
    """|omega_xy|^2."""
    return _squares(view.ang_vel[:, :2])


def tilt(xp: Any, view: View, params: Params) -> Array:
    """|gravity_xy|^2: squared sine of the tilt."""
    return _squares(view.gravity[:, :2])


def base_height(xp: Any, view: View, params: Params) -> Array:
    """(height - stand height)^2."""
    off = view.height - params["stand_height"]
    return off * off


def torque(xp: Any, view: View, params: Params) -> Array:
    """Sum of squared torques."""
    return _squares(view.torque)


def joint_velocity(xp: Any, view: View, params: Params) -> Array:
    """Sum of squared joint velocities."""
    return _squares(view.joint_vel)


def joint_acceleration(xp: Any, view: View, params: Params) -> Array:
    """Sum of squared joint accelerations."""
    return _squares(view.joint_acc)


def action_rate(xp: Any, view: View, params: Params) -> Array:
    """Sum of squared changes of the action."""
    return _squares(view.action - view.previous_action)


def joint_limits(xp: Any, view: View, params: Params) -> Array:
    """How far the joints are beyond the soft share of their ranges, summed, rad."""
    low, high = (constant(xp, params[f"joint_{end}"], view.joint_pos) for end in ("low", "high"))
    middle, half = (low + high) / 2, params["soft_limit"] * (high - low) / 2
    return xp.clip(xp.abs(view.joint_pos - middle) - half, 0.0, None).sum(-1)


def feet_air_time(xp: Any, view: View, params: Params) -> Array:
    """At each touch-down, the time the foot was in the air beyond `air_time_s`; 0 where the robot is asked to stand."""
    landed = as_number(xp, view.contact & (view.air_time > 0.0), view.air_time)
    return ((view.air_time - params["air_time_s"]) * landed).sum(-1) * _moving(xp, view, params)


def single_stance(xp: Any, view: View, params: Params) -> Array:
    """1 while exactly one foot is on the ground and the robot is asked to move, or while it is asked to stand."""
    one = as_number(xp, as_number(xp, view.contact, view.air_time).sum(-1) == 1.0, view.height)
    moving = _moving(xp, view, params)
    return one * moving + (1.0 - moving)


def gait_contact(xp: Any, view: View, params: Params) -> Array:
    """Feet on the ground or in the air as the gait clock says, each foot half a turn after the one before."""
    count = view.contact.shape[1]
    own = [(view.phase + i / 2.0) - xp.floor(view.phase + i / 2.0) for i in range(count)]
    stance = xp.stack([turn < params["stance_share"] for turn in own], -1)
    return as_number(xp, stance == view.contact, view.air_time).sum(-1) * _moving(xp, view, params)


def feet_slide(xp: Any, view: View, params: Params) -> Array:
    """Summed horizontal speed of the feet on the ground, m/s."""
    return (view.foot_speed * as_number(xp, view.contact, view.foot_speed)).sum(-1)


def undesired_contacts(xp: Any, view: View, params: Params) -> Array:
    """Links other than feet that touch something."""
    return view.undesired


def stand_still(xp: Any, view: View, params: Params) -> Array:
    """Distance of the joints from the default pose, summed, where the robot is asked to stand, rad."""
    return _deviation(xp, view, params).sum(-1) * (1.0 - _moving(xp, view, params))


def joint_deviation(xp: Any, view: View, params: Params) -> Array:
    """Distance from the default pose of the joints of `deviation_joints`, summed, rad."""
    return (_deviation(xp, view, params) * constant(xp, params["deviation_joints"], view.joint_pos)).sum(-1)


def _deviation(xp: Any, view: View, params: Params) -> Array:
    return xp.abs(view.joint_pos - constant(xp, params["default_joint_pos"], view.joint_pos))


def _squares(values: Array) -> Array:
    return (values * values).sum(-1)


def _moving(xp: Any, view: View, params: Params) -> Array:
    """1 where the command asks for motion, else 0."""
    return as_number(xp, _squares(view.command) > params["moving"] ** 2, view.height)
