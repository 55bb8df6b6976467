"""Hopper: a one-legged robot in the plane hops forward. Equal to Gymnasium's Hopper-v5."""

from __future__ import annotations

from robo_rlft.envs.mujoco.ranges import Outside, Range, Within
from robo_rlft.envs.mujoco.task import MujocoTask, Observation, Reward
from robo_rlft.envs.mujoco.tasks import locomotion as loco

FRAME_SKIP = 4
CONTROL_PERIOD_S = 0.002 * FRAME_SKIP
JOINTS = ("thigh", "leg", "foot")


HEALTHY = (
    Range("qpos", "healthy_state_range", start=2),
    Range("qvel", "healthy_state_range"),
    Range.at("qpos", 1, "healthy_z_range"),
    Range.at("qpos", 2, "healthy_angle_range"),
)
"""Every entry of the state is within its range, the torso high enough and upright."""

TASK = MujocoTask(
    id="Hopper",
    description="one-legged robot hops forward in the plane (Gymnasium Hopper-v5)",
    model=loco.gymnasium_model("hopper.xml"),
    frame_skip=FRAME_SKIP,
    max_episode_steps=1000,
    observations=(
        Observation("position", loco.planar_position, ("z", "pitch", *JOINTS), ("m", *["rad"] * 4)),
        Observation(
            "velocity",
            loco.clipped_velocity,
            (*loco.PLANAR_VELOCITY, *loco.rates(JOINTS)),
            ("m/s", "m/s", *["rad/s"] * 4),
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
    params={
        "healthy_state_range": (-100.0, 100.0),
        "healthy_z_range": (0.7, float("inf")),
        "healthy_angle_range": (-0.2, 0.2),
        "reset_noise_scale": 5e-3,
    },
    cameras=("track",),
)
