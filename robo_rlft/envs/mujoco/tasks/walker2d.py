"""Walker2d: a two-legged robot in the plane walks forward. Equal to Gymnasium's Walker2d-v5."""

from __future__ import annotations

from typing import Any

from robo_rlft.envs.mujoco.task import Array, MujocoTask, Observation, Params, Reward, State
from robo_rlft.envs.mujoco.tasks import locomotion as loco

FRAME_SKIP = 4
CONTROL_PERIOD_S = 0.002 * FRAME_SKIP
JOINTS = ("thigh", "leg", "foot", "thigh_left", "leg_left", "foot_left")


def healthy(xp: Any, state: State, params: Params) -> Array:
    """The torso's height and pitch are within their ranges."""
    (z_low, z_high), (angle_low, angle_high) = params["healthy_z_range"], params["healthy_angle_range"]
    z, angle = state.data["qpos"][:, 1], state.data["qpos"][:, 2]
    return (z_low < z) & (z < z_high) & (angle_low < angle) & (angle < angle_high)


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
        Reward("alive", loco.alive(healthy)),
        Reward("effort", loco.effort, -1e-3),
    ),
    terminated=loco.fallen(healthy),
    reset=loco.uniform_start,
    action_names=JOINTS,
    previous=("qpos",),
    params={"healthy_z_range": (0.8, 2.0), "healthy_angle_range": (-1.0, 1.0), "reset_noise_scale": 5e-3},
    cameras=("track",),
)
