"""HalfCheetah: a two-legged runner in the plane that never falls. Equal to Gymnasium's HalfCheetah-v5."""

from __future__ import annotations

from robo_rlft.envs.mujoco.task import MujocoTask, Observation, Reward
from robo_rlft.envs.mujoco.tasks import locomotion as loco

FRAME_SKIP = 5
CONTROL_PERIOD_S = 0.01 * FRAME_SKIP
JOINTS = ("bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot")

TASK = MujocoTask(
    id="HalfCheetah",
    description="two-legged runner in the plane (Gymnasium HalfCheetah-v5)",
    model=loco.gymnasium_model("half_cheetah.xml"),
    frame_skip=FRAME_SKIP,
    max_episode_steps=1000,
    observations=(
        Observation("position", loco.planar_position, ("z", "pitch", *JOINTS), ("m", *["rad"] * 7)),
        Observation(
            "velocity", loco.velocity, (*loco.PLANAR_VELOCITY, *loco.rates(JOINTS)), ("m/s", "m/s", *["rad/s"] * 7)
        ),
    ),
    rewards=(Reward("forward", loco.planar_speed(CONTROL_PERIOD_S)), Reward("effort", loco.effort, -0.1)),
    reset=loco.normal_velocity_start,
    action_names=JOINTS,
    previous=("qpos",),
    params={"reset_noise_scale": 0.1},
    cameras=("track",),
)
