"""What LIBERO's simulation looks like in numbers: the robot's own sensors, and everything else."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from jaxtyping import Float

_XYZ = ("x", "y", "z")
_XYZW = ("qx", "qy", "qz", "qw")
_TO_XYZW = [1, 2, 3, 0]
PROPRIOCEPTION = (
    *(f"hand_{n}" for n in (*_XYZ, *_XYZW)),
    "finger_left",
    "finger_right",
    *(f"joint{i}" for i in range(1, 8)),
)
"""Entries of the robot's own state, as LIBERO calls them: robot0_eef_pos (m), robot0_eef_quat (x, y, z, w),
robot0_gripper_qpos (m), robot0_joint_pos (rad)."""


def proprioception(env: Any) -> Float[np.ndarray, " entry"]:
    """The robot's own state, [16]."""
    robot, data = env.robots[0], env.sim.data
    return np.concatenate(
        [
            data.site_xpos[robot.eef_site_id],
            data.get_body_xquat(robot.robot_model.eef_name)[_TO_XYZW],
            data.qpos[robot._ref_gripper_joint_pos_indexes],
            data.qpos[robot._ref_joint_pos_indexes],
        ]
    )


class Privileged:
    """Where everything is that can move: poses of objects, joints of furniture.

    Args:
        env: LIBERO's environment.

    Attributes:
        names: of the entries.
    """

    def __init__(self, env: Any) -> None:
        self._env = env
        model = env.sim.model._model
        self._bodies = {name: model.body(thing.root_body).id for name, thing in env.env.objects_dict.items()}
        fixtures = {model.body(thing.root_body).id for thing in env.env.fixtures_dict.values()}
        self._joints = [j for j in range(model.njnt) if _belongs(model, j, fixtures)]
        poses = [f"{name}_{n}" for name in self._bodies for n in (*_XYZ, *_XYZW)]
        self.names = (*poses, *(model.joint(j).name for j in self._joints))

    def values(self) -> Float[np.ndarray, " entry"]:
        """All of it: m and quaternions (x, y, z, w), then the joints' rad or m."""
        data, model = self._env.sim.data, self._env.sim.model
        poses = [np.concatenate([data.body_xpos[b], data.body_xquat[b][_TO_XYZW]]) for b in self._bodies.values()]
        return np.concatenate([*poses, data.qpos[model.jnt_qposadr[self._joints]]])


def _belongs(model: mujoco.MjModel, joint: int, bodies: set[int]) -> bool:
    """Whether a joint moves a part of one of these bodies."""
    body = int(model.jnt_bodyid[joint])
    while body:
        if body in bodies:
            return model.jnt_type[joint] in (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE))
        body = int(model.body_parentid[body])
    return False
