"""Walker2d: a two-legged robot in the plane walks forward. Equal to Gymnasium's Walker2d-v5."""

from __future__ import annotations

from robo_rlft.envs.mujoco.ranges import Outside, Range, Within
from robo_rlft.envs.mujoco.task import MujocoTask, Observation, Reward
from robo_rlft.envs.mujoco.tasks import locomotion as loco

FRAME_SKIP = 4
CONTROL_PERIOD_S = 0.002 * FRAME_SKIP
JOINTS = ("thigh", "leg", "foot", "thigh_left", "leg_left", "foot_left")


HEALTHY = (Range.at("qpos", 1, "healthy_z_range"), Range.at("qpos", 2, "healthy_angle_range"))
"""The torso's height and pitch are within their ranges."""

TASK = MujocoTask(
    id="Walker2d",
    description="two-legged robot walks forward in the plane (Gymnasium Walker2d-v5)",
    model=loco.gymnasium_model("walker2d_v5.xml"),
    frame_skip=FRAME_SKIP,
    max_episode_steps=1000,
    observations=(
        Observation("position", loco.planar_position, ("z", "pitch", *JOINTS), ("m", *["rad"] * 7)),
        Observation(
            "velocity",
            loco.clipped_velocity,
            (*loco.PLANAR_VELOCITY, *loco.rates(JOINTS)),
            ("m/s", "m/s", *["rad/s"] * 7),
        ),
    ),
    rewards=(
        Reward("forward", loco.planar_speed(CONTROL_PERIOD_S)),
        Reward("alive", loco.alive(Within(HEALTHY))),
        Reward("effort", loco.effort, -1e-3),
    ),
    terminated=Outside(HEALTHY),
    reset=loco.uniform_start,
    action_names=JOINTS,
    previous=("qpos",),
    params={"healthy_z_range": (0.8, 2.0), "healthy_angle_range": (-1.0, 1.0), "reset_noise_scale": 5e-3},
    cameras=("track",),
)
