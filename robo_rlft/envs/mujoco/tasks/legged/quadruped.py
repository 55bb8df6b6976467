"""Quadruped: a 15 kg robot of the size of a Go2 walks, turns and stands as commanded, on a plane or on rough ground."""

from __future__ import annotations

import mujoco

from robo_rlft.envs.legged.robots import GO2
from robo_rlft.envs.legged.tables import QUADRUPED_REWARDS, privileged, proprioception
from robo_rlft.envs.legged.terrain import SCAN_POINTS, TILES, Terrain, terrain
from robo_rlft.envs.mujoco.task import Params
from robo_rlft.envs.mujoco.tasks.legged.scene import on_terrain, robot_spec
from robo_rlft.envs.mujoco.tasks.legged.velocity import velocity_task
from robo_rlft.spec import CRITIC_KEY

MODEL = "quadruped.xml"


def ground(params: Params) -> Terrain:
    """The terrain of QuadrupedRough."""
    return terrain(params["terrain_seed"])


def flat_model(params: Params) -> mujoco.MjModel:
    """The robot on a plane."""
    return robot_spec(MODEL, params).compile()


def rough_model(params: Params) -> mujoco.MjModel:
    """The robot on the terrain."""
    return on_terrain(robot_spec(MODEL, params), ground(params)).compile()


FLAT = velocity_task(
    "QuadrupedFlat",
    "15 kg quadruped follows velocity commands on a plane",
    GO2,
    flat_model,
    (*proprioception(GO2), *proprioception(GO2, CRITIC_KEY), *privileged(GO2)),
    QUADRUPED_REWARDS,
)
ROUGH = velocity_task(
    "QuadrupedRough",
    "15 kg quadruped follows velocity commands on hills, rubble and stairs",
    GO2,
    rough_model,
    (*proprioception(GO2), *proprioception(GO2, CRITIC_KEY), *privileged(GO2, len(SCAN_POINTS))),
    QUADRUPED_REWARDS,
    ground=ground,
    variants={name: {"tile": i} for i, name in enumerate(TILES)},
    params={"tile": 0, "terrain_seed": 0, "command_vx": (-0.5, 1.0), "success_velocity": 0.35},
)
