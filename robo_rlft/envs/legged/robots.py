"""Legged robots as facts: joints, limits, gains, default pose, for every engine and for the controller on the robot.

Orders of joints and feet are those of the policy's actions and observations, whatever an engine's own order is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LeggedRobot:
    """One robot under joint position control: torque = kp (default + scale * action - q) - kd dq, within its limit.

    Attributes:
        name: for people.
        joints: names, in the policy's order.
        default_joint_pos: targets of a zero action, rad.
        kp: stiffness, N m/rad.
        kd: damping, N m s/rad.
        torque_limit: N m.
        velocity_limit: rad/s, by the maker; the simulated joints do not enforce it.
        joint_low: lower end of the range, rad.
        joint_high: upper end, rad.
        feet: names of the feet, in the policy's order.
        stand_height: height of the base over the ground in the default pose, m.
        action_scale: rad per unit of action.
        action_bound: actions are clipped to plus and minus this.
    """

    name: str
    joints: tuple[str, ...]
    default_joint_pos: tuple[float, ...]
    kp: tuple[float, ...]
    kd: tuple[float, ...]
    torque_limit: tuple[float, ...]
    velocity_limit: tuple[float, ...]
    joint_low: tuple[float, ...]
    joint_high: tuple[float, ...]
    feet: tuple[str, ...]
    stand_height: float
    action_scale: float = 0.25
    action_bound: float = 4.0

    def params(self) -> Mapping[str, Any]:
        """What a controller needs to know, as parameters of a task: they travel with `RobotSpec.task`."""
        return {
            "joint_names": self.joints,
            "default_joint_pos": self.default_joint_pos,
            "action_scale": self.action_scale,
            "kp": self.kp,
            "kd": self.kd,
            "torque_limit": self.torque_limit,
            "velocity_limit": self.velocity_limit,
            "joint_low": self.joint_low,
            "joint_high": self.joint_high,
            "stand_height": self.stand_height,
        }


_LEGS = ("FL", "FR", "RL", "RR")
GO2 = LeggedRobot(
    name="15 kg quadruped of the size of a Unitree Go2",
    joints=tuple(f"{leg}_{joint}_joint" for leg in _LEGS for joint in ("hip", "thigh", "calf")),
    default_joint_pos=(0.1, 0.8, -1.5, -0.1, 0.8, -1.5, 0.1, 1.0, -1.5, -0.1, 1.0, -1.5),
    kp=(20.0,) * 12,
    kd=(0.5,) * 12,
    torque_limit=(23.7, 23.7, 35.55) * 4,
    velocity_limit=(30.1, 30.1, 20.07) * 4,
    joint_low=(-1.0472, -1.5708, -2.7227) * 2 + (-1.0472, -0.5236, -2.7227) * 2,
    joint_high=(1.0472, 3.4907, -0.83776) * 2 + (1.0472, 4.5379, -0.83776) * 2,
    feet=tuple(f"{leg}_foot" for leg in _LEGS),
    stand_height=0.33,
)
"""Joint names, ranges, torques and velocities of the maker's public description of the Go2 (the URDF in genesis-world);
gains and default pose as its public walking policies use them."""

_LEG = ("hip_pitch", "hip_roll", "hip_yaw", "knee", "ankle_pitch", "ankle_roll")
_ARM = ("shoulder_pitch", "shoulder_roll", "shoulder_yaw", "elbow", "wrist_roll")


def _of_g1(leg: tuple[float, ...], waist: float, arm: tuple[float, ...]) -> tuple[float, ...]:
    """Values of left leg, right leg, waist, left arm, right arm, the same on both sides."""
    return (*leg, *leg, waist, *arm, *arm)


_LEFT_LOW = (-2.5307, -0.5236, -2.7576, -0.0873, -0.8727, -0.2618), (-3.0892, -1.5882, -2.618, -1.0472, -1.9722)
_LEFT_HIGH = (2.8798, 2.9671, 2.7576, 2.8798, 0.5236, 0.2618), (2.6704, 2.2515, 2.618, 2.0944, 1.9722)
_RIGHT_LOW = (-2.5307, -2.9671, -2.7576, -0.0873, -0.8727, -0.2618), (-3.0892, -2.2515, -2.618, -1.0472, -1.9722)
_RIGHT_HIGH = (2.8798, 0.5236, 2.7576, 2.8798, 0.5236, 0.2618), (2.6704, 1.5882, 2.618, 2.0944, 1.9722)
G1 = LeggedRobot(
    name="33 kg humanoid of the size of a Unitree G1",
    joints=(
        *(f"left_{joint}_joint" for joint in _LEG),
        *(f"right_{joint}_joint" for joint in _LEG),
        "waist_yaw_joint",
        *(f"left_{joint}_joint" for joint in _ARM),
        *(f"right_{joint}_joint" for joint in _ARM),
    ),
    default_joint_pos=(
        *(-0.2, 0.0, 0.0, 0.42, -0.22, 0.0) * 2,
        0.0,
        *(0.2, 0.2, 0.0, 0.8, 0.0),
        *(0.2, -0.2, 0.0, 0.8, 0.0),
    ),
    kp=_of_g1((100.0, 100.0, 100.0, 150.0, 40.0, 40.0), 100.0, (40.0, 40.0, 40.0, 40.0, 20.0)),
    kd=_of_g1((2.0, 2.0, 2.0, 4.0, 2.0, 2.0), 3.0, (1.0, 1.0, 1.0, 1.0, 0.5)),
    torque_limit=_of_g1((88.0, 139.0, 88.0, 139.0, 50.0, 50.0), 88.0, (25.0,) * 5),
    velocity_limit=_of_g1((32.0, 20.0, 32.0, 20.0, 37.0, 37.0), 32.0, (37.0,) * 5),
    joint_low=(*_LEFT_LOW[0], *_RIGHT_LOW[0], -2.618, *_LEFT_LOW[1], *_RIGHT_LOW[1]),
    joint_high=(*_LEFT_HIGH[0], *_RIGHT_HIGH[0], 2.618, *_LEFT_HIGH[1], *_RIGHT_HIGH[1]),
    feet=("left_foot", "right_foot"),
    stand_height=0.765,
)
"""Joint names, ranges, torques and velocities of the maker's public descriptions of the G1 with 23 joints; gains of its
legs as its public walking policies use them, those of waist and arms ours."""
