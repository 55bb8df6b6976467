"""What a controller on the robot must know, read from a task's compiled model: joints, limits, gains, actions."""

from __future__ import annotations

import mujoco
import numpy as np

from robo_rlft.envs.mujoco.task import MujocoTask, Params
from robo_rlft.spec import ActionMeaning, JointSpec

_JOINT = int(mujoco.mjtTrn.mjTRN_JOINT)
_SLIDE = int(mujoco.mjtJoint.mjJNT_SLIDE)
_SINGLE = {_SLIDE, int(mujoco.mjtJoint.mjJNT_HINGE)}
"""Joints of one degree of freedom."""
_AFFINE, _NONE = int(mujoco.mjtBias.mjBIAS_AFFINE), int(mujoco.mjtBias.mjBIAS_NONE)


def joint_specs(model: mujoco.MjModel, params: Params) -> tuple[JointSpec, ...]:
    """The joints that actuators drive, in the order of the actuators; none where one drives something else.

    A default pose and limits of velocity stand in no model: they are the parameters `default_joint_pos` and
    `velocity_limit` of tasks that have them.
    """
    if not _drives_joints(model):
        return ()
    return tuple(_joint(model, params, i) for i in range(model.nu))


def action_meaning(task: MujocoTask, model: mujoco.MjModel, params: Params) -> ActionMeaning | None:
    """What the task says of its actions; else, where they go to motors of joints as they are, the effort they make."""
    if task.meaning is not None:
        return task.meaning(params)
    motors = _drives_joints(model) and bool((model.actuator_biastype == _NONE).all())
    if task.control is not None or not motors:
        return None
    effort = model.actuator_gear[:, 0] * model.actuator_gainprm[:, 0]
    return ActionMeaning("joint_effort", tuple(effort.tolist()), (0.0,) * model.nu)


def _drives_joints(model: mujoco.MjModel) -> bool:
    if not model.nu or (model.actuator_trntype != _JOINT).any():
        return False
    return set(model.jnt_type[model.actuator_trnid[:, 0]].tolist()) <= _SINGLE


def _joint(model: mujoco.MjModel, params: Params, actuator: int) -> JointSpec:
    joint = int(model.actuator_trnid[actuator, 0])
    limited = bool(model.jnt_limited[joint])
    low, high = model.jnt_range[joint].tolist() if limited else (None, None)
    return JointSpec(
        name=model.joint(joint).name,
        unit="m" if model.jnt_type[joint] == _SLIDE else "rad",
        position_low=low,
        position_high=high,
        velocity=_entry(params, "velocity_limit", actuator),
        effort=_effort(model, actuator, joint),
        default=_entry(params, "default_joint_pos", actuator),
        **_gains(model, actuator),
    )


def _entry(params: Params, name: str, index: int) -> float | None:
    return float(params[name][index]) if name in params else None


def _gains(model: mujoco.MjModel, actuator: int) -> dict[str, float]:
    """kp and kd of a position servo: force = kp (target - q) - kd dq."""
    if model.actuator_biastype[actuator] != _AFFINE:
        return {}
    return {
        "stiffness": float(model.actuator_gainprm[actuator, 0]),
        "damping": 0.0 - float(model.actuator_biasprm[actuator, 2]),
    }


def _effort(model: mujoco.MjModel, actuator: int, joint: int) -> float | None:
    """The tightest of the bounds on the force of the actuator, of its command, and on the joint."""
    gear, bounds = abs(model.actuator_gear[actuator, 0]), []
    if model.actuator_forcelimited[actuator]:
        bounds.append(gear * np.abs(model.actuator_forcerange[actuator]).max())
    if model.actuator_ctrllimited[actuator] and model.actuator_biastype[actuator] == _NONE:
        gain = abs(model.actuator_gainprm[actuator, 0])
        bounds.append(gear * gain * np.abs(model.actuator_ctrlrange[actuator]).max())
    if model.jnt_actfrclimited[joint]:
        bounds.append(np.abs(model.jnt_actfrcrange[joint]).max())
    return float(min(bounds)) if bounds else None
