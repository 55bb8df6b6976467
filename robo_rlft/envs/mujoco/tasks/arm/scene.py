"""Models of the arm's tasks, assembled from `arm.xml`; and where the arm starts.

Only the contacts that can happen are listed, as explicit pairs: the command's workspace keeps the links and the hand
clear of the table, so no time goes into testing them.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import mujoco
import numpy as np
from jaxtyping import Float

from robo_rlft.envs.mujoco.task import State
from robo_rlft.envs.mujoco.tasks.arm.control import ARM_JOINTS, FIELDS, joint_targets, tool_pose

ARM_XML = Path(__file__).with_name("arm.xml")
READY = (0.0, 0.1, 0.0, -2.3, 0.0, 2.4, 0.7853981633974483)
"""A posture with the gripper over the table, from which `solve_pose` starts, rad."""


def arm_spec() -> mujoco.MjSpec:
    """The arm on its table, to be completed by a task."""
    return mujoco.MjSpec.from_file(str(ARM_XML))


def touch(spec: mujoco.MjSpec, first: str, second: str, friction: float, condim: int = 3) -> None:
    """Let two geoms meet, stiffly enough that contact forces of the arm press them by less than 0.1 mm."""
    spec.add_pair(
        geomname1=first,
        geomname2=second,
        condim=condim,
        friction=[friction, friction, 0.005, 1e-4, 1e-4],
        solref=[0.02, 1.0],
        solimp=[0.98, 0.99, 0.0005, 0.5, 2.0],
    )


@lru_cache(maxsize=16)
def start_map(
    model: mujoco.MjModel, pose: tuple[float, ...]
) -> tuple[Float[np.ndarray, " joint"], Float[np.ndarray, "joint pose"]]:
    """Joint angles at a pose, and their change per unit change of the pose (to first order)."""
    home = solve_pose(model, np.array(pose))
    step = 1e-4
    columns = [
        (solve_pose(model, pose + step * unit, home) - solve_pose(model, pose - step * unit, home)) / (2 * step)
        for unit in np.eye(6)
    ]
    return home, np.stack(columns, 1)


def solve_pose(
    model: mujoco.MjModel, pose: Float[np.ndarray, " pose"], start: Float[np.ndarray, " joint"] | None = None
) -> Float[np.ndarray, " joint"]:
    """Joint angles that put the tool at a pose (x, y, z, roll, pitch, yaw), by iterating the controller's own step."""
    data = mujoco.MjData(model)
    data.qpos[:ARM_JOINTS] = READY if start is None else start
    for _ in range(40):
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        state = State({name: np.array(getattr(data, name))[None] for name in FIELDS}, {}, {})
        home = tuple(data.qpos[:ARM_JOINTS]) if start is not None else READY
        data.qpos[:ARM_JOINTS] = joint_targets(np, state, tool_pose(np, state), pose[None], home)[0]
    return data.qpos[:ARM_JOINTS].copy()


