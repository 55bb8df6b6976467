"""HumanoidWalk: a 33 kg robot of the size of a G1 walks, turns and stands as commanded, by a gait clock."""

from __future__ import annotations

import mujoco

from robo_rlft.envs.legged.robots import G1
from robo_rlft.envs.legged.tables import HUMANOID_REWARDS, clock, privileged, proprioception
from robo_rlft.envs.mujoco.task import Params
from robo_rlft.envs.mujoco.tasks.legged.scene import robot_spec
from robo_rlft.envs.mujoco.tasks.legged.velocity import velocity_task
from robo_rlft.spec import CRITIC_KEY


def model(params: Params) -> mujoco.MjModel:
    """The robot on a plane."""
    return robot_spec("humanoid.xml", params).compile()


def _deviates(joint: str) -> bool:
    """Joints that walking forward leaves alone: all but the pitch of the legs."""
    return not any(part in joint for part in ("hip_pitch", "knee", "ankle_pitch"))


WALK = velocity_task(
    "HumanoidWalk",
    "33 kg humanoid follows velocity commands on a plane",
    G1,
    model,
    (*proprioception(G1), *clock(), *proprioception(G1, CRITIC_KEY), *clock(CRITIC_KEY), *privileged(G1)),
    HUMANOID_REWARDS,
    params={
        "command_vx": (-0.3, 0.8),
        "command_vy": (-0.3, 0.3),
        "command_yaw": (-0.5, 0.5),
        "fall_height": 0.65,
        "success_velocity": 0.3,
        "deviation_joints": tuple(float(_deviates(joint)) for joint in G1.joints),
    },
)
