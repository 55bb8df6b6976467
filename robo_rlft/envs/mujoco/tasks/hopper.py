"""Hopper: a one-legged robot in the plane hops forward. Equal to Gymnasium's Hopper-v5."""

from __future__ import annotations

from typing import Any

from robo_rlft.envs.mujoco.task import Array, MujocoTask, Observation, Params, Reward, State
from robo_rlft.envs.mujoco.tasks import locomotion as loco

FRAME_SKIP = 4
CONTROL_PERIOD_S = 0.002 * FRAME_SKIP
JOINTS = ("thigh", "leg", "foot")


def healthy(xp: Any, state: State, params: Params) -> Array:
    """High enough, upright, and every other entry of the state within its range."""
    qpos, qvel = state.data["qpos"], state.data["qvel"]
    (z_low, z_high), (angle_low, angle_high) = params["healthy_z_range"], params["healthy_angle_range"]
    low, high = params["healthy_state_range"]
    z, angle = qpos[:, 1], qpos[:, 2]
    rest = xp.concatenate((qpos[:, 2:], qvel), -1)
    inside = ((low < rest) & (rest < high)).all(-1)
    return inside & (z_low < z) & (z < z_high) & (angle_low < angle) & (angle < angle_high)


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
        Reward("alive", loco.alive(healthy)),
        Reward("effort", loco.effort, -1e-3),
    ),
    terminated=loco.fallen(healthy),
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
