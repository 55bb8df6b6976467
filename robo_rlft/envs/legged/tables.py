"""The tables of legged velocity tracking: which terms, in which order, with which weights, for every engine."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from robo_rlft.envs.legged import observations as seen
from robo_rlft.envs.legged import rewards as pays
from robo_rlft.envs.legged.memory import COMMAND_PARAMS
from robo_rlft.envs.legged.rewards import REWARD_PARAMS
from robo_rlft.envs.legged.robots import LeggedRobot
from robo_rlft.envs.legged.view import Array, Params, View
from robo_rlft.spec import CRITIC_KEY, POLICY_KEY, ActionMeaning

TermFn = Callable[[Any, View, Params], Array]
"""(xp, view, params) -> [N] for a reward, [N, width] for an observation"""
PERIOD_S = 0.02
"""Length of a control step."""


@dataclass(frozen=True)
class Observed:
    """One named slice of an observation group."""

    name: str
    fn: TermFn
    names: tuple[str, ...]
    units: tuple[str, ...]
    group: str = POLICY_KEY
    measured: bool = True
    """Sensors give it, so that it can be noisy; commands and last actions are known."""
    frame: str = ""
    """Frame of its vectors, where it has one."""
    joints: tuple[str, ...] = ()
    """Joints it reads, in order."""
    offset: str = ""
    """The parameter that is subtracted from what is read."""


@dataclass(frozen=True)
class Paid:
    """One reward term with its weight per second, as the field quotes weights: a step pays weight * period."""

    name: str
    fn: TermFn
    per_second: float

    @property
    def weight(self) -> float:
        """Of one control step."""
        return self.per_second * PERIOD_S


def proprioception(robot: LeggedRobot, group: str = POLICY_KEY) -> tuple[Observed, ...]:
    """What a robot measures of itself, and what it is asked for: all a policy gets."""
    joints, count = robot.joints, len(robot.joints)
    return (
        Observed("ang_vel", seen.ang_vel, ("wx", "wy", "wz"), ("rad/s",) * 3, group, frame="base"),
        Observed("gravity", seen.gravity, ("gravity_x", "gravity_y", "gravity_z"), ("",) * 3, group, frame="base"),
        Observed(
            "command",
            seen.command,
            ("command_vx", "command_vy", "command_yaw"),
            ("m/s", "m/s", "rad/s"),
            group,
            measured=False,
            frame="base",
        ),
        Observed(
            "joint_pos",
            seen.joint_pos,
            tuple(f"{j}_offset" for j in joints),
            ("rad",) * count,
            group,
            joints=joints,
            offset="default_joint_pos",
        ),
        Observed(
            "joint_vel", seen.joint_vel, tuple(f"{j}_rate" for j in joints), ("rad/s",) * count, group, joints=joints
        ),
        Observed(
            "last_action",
            seen.last_action,
            tuple(f"{j}_action" for j in joints),
            ("",) * count,
            group,
            measured=False,
            joints=joints,
        ),
    )


def clock(group: str = POLICY_KEY) -> tuple[Observed, ...]:
    """The gait clock, for robots that walk by it."""
    return (Observed("clock", seen.clock, ("clock_sin", "clock_cos"), ("", ""), group, False),)


def privileged(robot: LeggedRobot, ground_points: int = 0) -> tuple[Observed, ...]:
    """What only a simulator knows, for the value function."""
    feet = robot.feet
    terms = (
        Observed("lin_vel", seen.lin_vel, ("vx", "vy", "vz"), ("m/s",) * 3, CRITIC_KEY, frame="base"),
        Observed("height", seen.height, ("height",), ("m",), CRITIC_KEY),
        Observed("contact", seen.contact, tuple(f"{foot}_contact" for foot in feet), ("",) * len(feet), CRITIC_KEY),
        Observed("friction", seen.friction, ("friction",), ("",), CRITIC_KEY),
    )
    if not ground_points:
        return terms
    names = tuple(f"ground_{i}" for i in range(ground_points))
    return (*terms, Observed("ground", seen.ground, names, ("m",) * ground_points, CRITIC_KEY))


QUADRUPED_REWARDS = (
    Paid("track_velocity", pays.track_velocity, 1.5),
    Paid("track_yaw", pays.track_yaw, 0.75),
    Paid("feet_air_time", pays.feet_air_time, 1.0),
    Paid("vertical_velocity", pays.vertical_velocity, -2.0),
    Paid("roll_pitch_rate", pays.roll_pitch_rate, -0.05),
    Paid("tilt", pays.tilt, -2.5),
    Paid("torque", pays.torque, -2e-4),
    Paid("joint_acceleration", pays.joint_acceleration, -2.5e-7),
    Paid("action_rate", pays.action_rate, -0.01),
    Paid("joint_limits", pays.joint_limits, -10.0),
    Paid("undesired_contacts", pays.undesired_contacts, -1.0),
    Paid("stand_still", pays.stand_still, -0.5),
)
HUMANOID_REWARDS = (
    Paid("track_velocity", pays.track_velocity, 1.5),
    Paid("track_yaw", pays.track_yaw, 0.75),
    Paid("alive", pays.alive, 0.5),
    Paid("gait_contact", pays.gait_contact, 0.3),
    Paid("vertical_velocity", pays.vertical_velocity, -0.5),
    Paid("roll_pitch_rate", pays.roll_pitch_rate, -0.05),
    Paid("tilt", pays.tilt, -2.0),
    Paid("base_height", pays.base_height, -10.0),
    Paid("torque", pays.torque, -1e-5),
    Paid("joint_acceleration", pays.joint_acceleration, -1e-7),
    Paid("action_rate", pays.action_rate, -0.01),
    Paid("joint_limits", pays.joint_limits, -5.0),
    Paid("joint_deviation", pays.joint_deviation, -0.3),
    Paid("feet_slide", pays.feet_slide, -0.2),
    Paid("undesired_contacts", pays.undesired_contacts, -1.0),
    Paid("stand_still", pays.stand_still, -0.1),
)

END_PARAMS: Params = {"fall_tilt": 1.0, "fall_height": 0.5, "success_s": 20.0, "success_velocity": 0.25}
"""An episode ends beyond this tilt (rad) or below this share of the standing height; it succeeds when after `success_s`
its mean error of the velocity in the plane is at most `success_velocity` (m/s)."""


def offsets_from_default(params: Params) -> ActionMeaning:
    """What the actions of all these tasks are: `joint_targets` of `view`, as facts."""
    default = tuple(float(x) for x in params["default_joint_pos"])
    return ActionMeaning("joint_position_offset", (float(params["action_scale"]),) * len(default), default)


def fallen(xp: Any, view: View, params: Params) -> Array:
    """The robot lies or is about to, bool [N]."""
    upright = view.gravity[:, 2] < -math.cos(params["fall_tilt"])
    return ~(upright & (view.height > params["fall_height"] * params["stand_height"]))


def task_params(robot: LeggedRobot) -> dict[str, Any]:
    """All parameters that the tables read."""
    return {**robot.params(), **COMMAND_PARAMS, **REWARD_PARAMS, **END_PARAMS}
