"""What a simulated robot tells, as messages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robo_rlft.export.robot.simulated import Imu
from robo_rlft.rosmsg.cdr import Message, blank
from robo_rlft.rosmsg.known import IMU, KNOWN, TWIST
from robo_rlft.rosmsg.labels import set_time


def imu(measured: Imu, stamp_ns: int) -> Message:
    """A sensor_msgs/Imu."""
    message = blank(IMU, KNOWN)
    set_time(message.header.stamp, stamp_ns)
    message.header.frame_id = "base_link"
    _fill(message.orientation, "xyzw", measured.orientation)
    _fill(message.angular_velocity, "xyz", measured.angular_velocity)
    _fill(message.linear_acceleration, "xyz", measured.linear_acceleration)
    return message


def twist(steering: Sequence[float] | np.ndarray) -> Message:
    """A geometry_msgs/Twist that asks for forward, left and yaw velocity."""
    message = blank(TWIST, KNOWN)
    message.linear.x, message.linear.y, message.angular.z = map(float, steering)
    return message


def _fill(vector: Message, names: str, values: Sequence[float] | np.ndarray) -> None:
    for name, value in zip(names, values, strict=True):
        setattr(vector, name, float(value))
