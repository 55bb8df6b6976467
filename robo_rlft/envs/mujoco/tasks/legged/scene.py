"""Models of the legged tasks: a robot's MJCF with its actuators, on a plane or on terrain."""

from __future__ import annotations

from pathlib import Path

import mujoco

from robo_rlft.envs.legged.terrain import Terrain
from robo_rlft.envs.legged.view import Params
from robo_rlft.errors import ConfigError

FOLDER = Path(__file__).parent
BASE_M = 0.5
"""Depth of the ground below its lowest point."""


def robot_spec(file: str, params: Params) -> mujoco.MjSpec:
    """The robot with a position actuator on every joint: torque = kp (target - q) - kd dq, at every physics step."""
    spec = mujoco.MjSpec.from_file(str(FOLDER / file))
    gains = zip(params["joint_names"], params["kp"], params["kd"], params["torque_limit"], strict=True)
    for joint, kp, kd, limit in gains:
        if min(kp, kd, limit) < 0:
            raise ConfigError(f"kp, kd and torque_limit of {joint} are {kp:g}, {kd:g}, {limit:g}: none may be negative")
        spec.add_actuator(
            name=joint,
            target=joint,
            trntype=mujoco.mjtTrn.mjTRN_JOINT,
            gaintype=mujoco.mjtGain.mjGAIN_FIXED,
            biastype=mujoco.mjtBias.mjBIAS_AFFINE,
            gainprm=[kp, *[0.0] * 9],
            biasprm=[0.0, -kp, -kd, *[0.0] * 7],
            forcelimited=True,
            forcerange=[-limit, limit],
        )
    return spec


def on_terrain(spec: mujoco.MjSpec, terrain: Terrain) -> mujoco.MjSpec:
    """Replace the plane by a height field; beyond its edge the plane goes on, a little lower."""
    rows, columns = terrain.heights.shape
    top = float(terrain.heights.max())
    spec.add_hfield(
        name="terrain",
        nrow=rows,
        ncol=columns,
        size=[(columns - 1) * terrain.cell / 2, (rows - 1) * terrain.cell / 2, top, BASE_M],
        userdata=(terrain.heights / top).ravel(),
    )
    ground = spec.geom("ground")
    ground.type, ground.hfieldname = mujoco.mjtGeom.mjGEOM_HFIELD, "terrain"
    spec.worldbody.add_geom(
        name="surroundings",
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        pos=[0.0, 0.0, -0.02],
        size=[0.0, 0.0, 0.05],
        contype=1,
        conaffinity=0,
        material="ground",
    )
    return spec
