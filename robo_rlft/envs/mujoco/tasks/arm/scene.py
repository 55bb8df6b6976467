"""Models of the arm's tasks, assembled from `arm.xml`; and the joint angles for a pose.

Only the contacts that can happen are listed, as explicit pairs: the command's workspace keeps the links clear of the
table, so no time goes into testing them.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import mujoco
import numpy as np
from jaxtyping import Float

from robo_rlft.envs.mujoco.tasks.arm.control import ARM_JOINTS

ARM_XML = Path(__file__).with_name("arm.xml")
READY = (0.0, 0.1, 0.0, -2.3, 0.0, 2.4, np.pi / 4)
"""A posture with the gripper over the table, rad; `solve_pose` stays as near to it as it can."""


def arm_spec() -> mujoco.MjSpec:
    """The arm on its table, to be completed by a task."""
    return mujoco.MjSpec.from_file(str(ARM_XML))


def touch(
    spec: mujoco.MjSpec,
    first: str,
    second: str,
    friction: float,
    condim: int = 3,
    impedance: tuple[float, float] = (0.9, 0.95),
) -> None:
    """Let two geoms meet, so that the arm's forces press them into each other by a few tenths of a millimetre.

    Contacts answer within two substeps, the fastest a stable one can. Much stiffer impedances are no gain: a contact
    thinner than what the arm moves in a substep is lost and found again, and things slip in between.
    """
    spec.add_pair(
        geomname1=first,
        geomname2=second,
        condim=condim,
        friction=[friction, friction, 0.005, 1e-4, 1e-4],
        solref=[2.0 * spec.option.timestep, 1.0],
        solimp=[*impedance, 0.001, 0.5, 2.0],
    )


@lru_cache(maxsize=16)
def start_map(
    model: mujoco.MjModel, pose: tuple[float, ...]
) -> tuple[Float[np.ndarray, " joint"], Float[np.ndarray, "joint pose"]]:
    """Joint angles at a pose, and their change per unit change of the pose, to first order."""
    step = 1e-4
    columns = [
        (solve_pose(model, pose + step * unit) - solve_pose(model, pose - step * unit)) / (2 * step)
        for unit in np.eye(6)
    ]
    return solve_pose(model, np.array(pose)), np.stack(columns, 1)


def solve_pose(
    model: mujoco.MjModel, pose: Float[np.ndarray, " pose"], iterations: int = 60
) -> Float[np.ndarray, " joint"]:
    """Joint angles that put the tool at a pose (x, y, z, rx, ry, rz).

    Damped least squares with the null space drawn towards `READY` (Nakamura and Hanafusa 1986; Liegeois 1977):
    q += z + J^T (J J^T + d^2 I)^-1 (e - J z).

    Raises:
        ValueError: the pose is out of reach.
    """
    data, damping, posture_gain = mujoco.MjData(model), 0.01, 0.3
    data.qpos[:ARM_JOINTS] = READY
    error = np.full(6, np.inf)
    for _ in range(iterations):
        mujoco.mj_fwdPosition(model, data)
        jacobian = _tool_jacobian(model, data)
        error = pose - data.actuator_length[:6]
        posture = posture_gain * (np.array(READY) - data.qpos[:ARM_JOINTS])
        normal = jacobian @ jacobian.T + damping**2 * np.eye(6)
        data.qpos[:ARM_JOINTS] += posture + jacobian.T @ np.linalg.solve(normal, error - jacobian @ posture)
    if np.abs(error).max() > 1e-4:
        raise ValueError(f"the tool cannot reach {np.round(pose, 3).tolist()}")
    return data.qpos[:ARM_JOINTS].copy()


def _tool_jacobian(model: mujoco.MjModel, data: mujoco.MjData) -> Float[np.ndarray, "pose joint"]:
    jacobian = np.zeros((6, model.nv))
    mujoco.mj_jacSite(model, data, jacobian[:3], jacobian[3:], model.site("tcp").id)
    return jacobian[:, :ARM_JOINTS]
