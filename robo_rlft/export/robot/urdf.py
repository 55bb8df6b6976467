"""A simulated robot as URDF: `python -m robo_rlft.export.robot.urdf ENV [VELOCITY] > robot.urdf`.

Links, masses, joints with their limits, and the section that ros2_control reads, with its mock hardware. Shapes for the
eye and for collisions are left out: it is for controllers and for `robot_state_publisher`. Not part of what runs on a
robot.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from xml.etree.ElementTree import Element, SubElement, indent, tostring

import mujoco
import numpy as np

from robo_rlft.envs.mujoco.engine import MujocoEnv
from robo_rlft.envs.registry import make
from robo_rlft.errors import ConfigError
from robo_rlft.spec import JointSpec

IMU_ENTRIES = (
    *(f"orientation.{axis}" for axis in "xyzw"),
    *(f"angular_velocity.{axis}" for axis in "xyz"),
    *(f"linear_acceleration.{axis}" for axis in "xyz"),
)
_KINDS = {int(mujoco.mjtJoint.mjJNT_HINGE): "revolute", int(mujoco.mjtJoint.mjJNT_SLIDE): "prismatic"}


def urdf(env_id: str, velocity: float | None = None) -> str:
    """The text of the URDF.

    Args:
        env_id: a MuJoCo environment.
        velocity: limit of joints whose own is not known, rad/s or m/s: URDF asks for one.

    Raises:
        ConfigError: the environment is none of MuJoCo's, or a velocity limit is missing.
    """
    env = make(env_id, num_envs=1, threads=1)
    try:
        if not isinstance(env, MujocoEnv):
            raise ConfigError(f"{env_id} has no MuJoCo model to describe: choose e.g. QuadrupedFlat")
        root = _robot(env.simulation.model, env_id, env.robot.joints, velocity)
    finally:
        env.close()
    indent(root)
    return '<?xml version="1.0"?>\n' + tostring(root, encoding="unicode") + "\n"


def _robot(model: mujoco.MjModel, env_id: str, joints: Sequence[JointSpec], velocity: float | None) -> Element:
    root, known = Element("robot", name=env_id), {joint.name: joint for joint in joints}
    moved = [b for b in range(1, model.nbody) if model.body_mocapid[b] < 0]
    if any(model.body_parentid[b] == 0 and not _free(model, b) for b in moved):
        SubElement(root, "link", name="world")
    for body in moved:
        _link(root, model, body)
        if not _free(model, body):
            _joint(root, model, body, known, velocity)
    _control(root, [j for j in range(model.njnt) if int(model.jnt_type[j]) in _KINDS], model)
    return root


def _free(model: mujoco.MjModel, body: int) -> bool:
    first = model.body_jntadr[body]
    return bool(first >= 0 and model.jnt_type[first] == int(mujoco.mjtJoint.mjJNT_FREE))


def _link(root: Element, model: mujoco.MjModel, body: int) -> None:
    link = SubElement(root, "link", name=model.body(body).name)
    inertial = SubElement(link, "inertial")
    SubElement(inertial, "origin", xyz=_text(model.body_ipos[body]), rpy=_rpy(model.body_iquat[body]))
    SubElement(inertial, "mass", value=f"{model.body_mass[body]:.9g}")
    moments = dict(zip(("ixx", "iyy", "izz"), model.body_inertia[body], strict=True))
    given = {name: f"{value:.9g}" for name, value in moments.items()}
    SubElement(inertial, "inertia", {**given, "ixy": "0", "ixz": "0", "iyz": "0"})


def _joint(
    root: Element, model: mujoco.MjModel, body: int, known: dict[str, JointSpec], velocity: float | None
) -> None:
    at, count = int(model.body_jntadr[body]), int(model.body_jntnum[body])
    name = model.joint(at).name if count else f"{model.body(body).name}_fixed"
    kind = _KINDS[int(model.jnt_type[at])] if count else "fixed"
    joint = SubElement(root, "joint", name=name, type=kind)
    shift = model.jnt_pos[at] if count else np.zeros(3)
    SubElement(joint, "origin", xyz=_text(model.body_pos[body] + shift), rpy=_rpy(model.body_quat[body]))
    SubElement(joint, "parent", link=model.body(int(model.body_parentid[body])).name)
    SubElement(joint, "child", link=model.body(body).name)
    if count:
        SubElement(joint, "axis", xyz=_text(model.jnt_axis[at]))
        SubElement(joint, "limit", _limits(model, at, known.get(name), velocity))


def _limits(model: mujoco.MjModel, at: int, spec: JointSpec | None, velocity: float | None) -> dict[str, str]:
    """Those of the robot's description where it has them, else the model's; URDF asks for all four."""
    low, high = model.jnt_range[at]
    values = {"lower": low, "upper": high, "effort": model.jnt_actfrcrange[at][1], "velocity": velocity}
    if spec is not None:
        facts = (spec.position_low, spec.position_high, spec.effort, spec.velocity)
        values |= {k: v for k, v in zip(values, facts, strict=True) if v is not None}
    if values["velocity"] is None:
        raise ConfigError(f"joint '{model.joint(at).name}' has no velocity limit, which URDF asks for: give one")
    return {name: f"{value:.9g}" for name, value in values.items()}


def _control(root: Element, joints: Sequence[int], model: mujoco.MjModel) -> None:
    control = SubElement(root, "ros2_control", name="robot", type="system")
    hardware = SubElement(control, "hardware")
    SubElement(hardware, "plugin").text = "mock_components/GenericSystem"
    for j in joints:
        joint = SubElement(control, "joint", name=model.joint(j).name)
        SubElement(joint, "command_interface", name="position")
        for name in ("position", "velocity"):
            SubElement(joint, "state_interface", name=name)
    if model.njnt and model.jnt_type[0] == int(mujoco.mjtJoint.mjJNT_FREE):
        sensor = SubElement(control, "sensor", name="imu")
        for name in IMU_ENTRIES:
            SubElement(sensor, "state_interface", name=name)


def _text(values: np.ndarray) -> str:
    return " ".join(f"{value:.9g}" for value in values)


def _rpy(quat: np.ndarray) -> str:
    """Roll, pitch and yaw about fixed axes, of a quaternion (w, x, y, z)."""
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, quat)
    r = matrix.reshape(3, 3)
    pitch = np.arcsin(np.clip(-r[2, 0], -1.0, 1.0))
    if abs(r[2, 0]) > 1 - 1e-9:  # roll and yaw turn about the same axis: all of it is the roll
        return _text(np.array([np.arctan2(-r[1, 2], r[1, 1]), pitch, 0.0]))
    return _text(np.array([np.arctan2(r[2, 1], r[2, 2]), pitch, np.arctan2(r[1, 0], r[0, 0])]))


if __name__ == "__main__":
    print(urdf(sys.argv[1], *map(float, sys.argv[2:3])), end="")
