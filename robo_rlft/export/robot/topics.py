"""Names and types of the topics between a robot and a policy. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robo_rlft.rosmsg.cdr import Message, blank
from robo_rlft.rosmsg.known import JOINT_STATE, KNOWN, TRAJECTORY
from robo_rlft.rosmsg.labels import set_time


@dataclass(frozen=True)
class Topics:
    """Absolute names.

    Attributes:
        joint_states: sensor_msgs/JointState, from the robot.
        imu: sensor_msgs/Imu, from the robot.
        observation: std_msgs/Float64MultiArray, from the robot: what joints and IMU do not tell.
        command_velocity: geometry_msgs/Twist, from whoever steers.
        commands: std_msgs/Float64MultiArray, to the robot.
        trajectory: trajectory_msgs/JointTrajectory, to the robot.
        diagnostics: diagnostic_msgs/DiagnosticArray, from the policy.
        seen: std_msgs/Float64MultiArray, from the policy: the observation it acted on, entry by entry.
        done: std_msgs/Float64MultiArray, from the policy: the action that was executed, in the policy's own units.
        stop: std_msgs/Bool, latched, to the policy: true stops it until a reset.
        reset: std_msgs/Bool, to the policy: true begins anew.
    """

    joint_states: str = "/joint_states"
    imu: str = "/imu"
    observation: str = "/robot/observation"
    command_velocity: str = "/cmd_vel"
    commands: str = "/robot/commands"
    trajectory: str = "/robot/joint_trajectory"
    diagnostics: str = "/diagnostics"
    seen: str = "/policy/observation"
    done: str = "/policy/action"
    stop: str = "/policy/emergency_stop"
    reset: str = "/policy/reset"


def joint_state(
    names: Sequence[str], position: np.ndarray, velocity: np.ndarray, effort: np.ndarray, stamp_ns: int
) -> Message:
    """A sensor_msgs/JointState."""
    message = blank(JOINT_STATE, KNOWN)
    set_time(message.header.stamp, stamp_ns)
    message.name, message.position, message.velocity, message.effort = list(names), position, velocity, effort
    return message


def trajectory(names: Sequence[str], positions: np.ndarray, stamp_ns: int, period_ns: int) -> Message:
    """A trajectory_msgs/JointTrajectory with one point, due one period after the observation it answers."""
    message = blank(TRAJECTORY, KNOWN)
    set_time(message.header.stamp, stamp_ns)
    message.joint_names = list(names)
    point = blank("trajectory_msgs/msg/JointTrajectoryPoint", KNOWN)
    point.positions = positions
    set_time(point.time_from_start, period_ns)
    message.points = [point]
    return message
