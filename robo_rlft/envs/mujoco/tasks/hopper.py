"""Hopper: a one-legged robot in the plane hops forward. Equal to Gymnasium's Hopper-v5."""

from __future__ import annotations

from typing import Any

from robo_rlft.envs.mujoco.task import Array, MujocoTask, Observation, Params, Reward, State
from robo_rlft.envs.mujoco.tasks.locomotion import gymnasium_model, uniform_start

FRAME_SKIP = 4
CONTROL_PERIOD_S = 0.002 * FRAME_SKIP


def position(xp: Any, state: State, params: Params) -> Array:
    """Height, torso angle and joint angles; the distance travelled is left out."""
    return state.data["qpos"][:, 1:]


def velocity(xp: Any, state: State, params: Params) -> Array:
    """All velocities, clipped to ± 10."""
    return xp.clip(state.data["qvel"], -10.0, 10.0)


def forward_speed(xp: Any, state: State, action: Array, params: Params) -> Array:
    """Mean speed along x over the control step, m/s."""
    return (state.data["qpos"][:, 0] - state.previous["qpos"][:, 0]) / CONTROL_PERIOD_S


def alive(xp: Any, state: State, action: Array, params: Params) -> Array:
    """1 while healthy."""
    return xp.where(healthy(xp, state, params), 1.0, 0.0)


def effort(xp: Any, state: State, action: Array, params: Params) -> Array:
    """Sum of squared actions."""
    return xp.sum(xp.square(action), -1)


def healthy(xp: Any, state: State, params: Params) -> Array:
    """Upright, high enough and every other state entry within its range."""
    qpos, qvel = state.data["qpos"], state.data["qvel"]
    (z_low, z_high), (a_low, a_high) = params["healthy_z_range"], params["healthy_angle_range"]
    low, high = params["healthy_state_range"]
    z, angle = qpos[:, 1], qpos[:, 2]
    rest = xp.concatenate((qpos[:, 2:], qvel), -1)
    inside = ((low < rest) & (rest < high)).all(-1)
    return inside & (z_low < z) & (z < z_high) & (a_low < angle) & (angle < a_high)


def fallen(xp: Any, state: State, params: Params) -> Array:
    """No longer healthy."""
    return ~healthy(xp, state, params)


JOINTS = ("thigh", "leg", "foot")

TASK = MujocoTask(
    id="Hopper",
    description="one-legged robot hops forward in the plane (Gymnasium Hopper-v5)",
    model=gymnasium_model("hopper.xml"),
    frame_skip=FRAME_SKIP,
    max_episode_steps=1000,
    observations=(
        Observation("position", position, ("z", "torso", *JOINTS), ("m", "rad", "rad", "rad", "rad")),
        Observation(
            "velocity",
            velocity,
            ("vx", "vz", "torso_rate", *(f"{j}_rate" for j in JOINTS)),
            ("m/s", "m/s", "rad/s", "rad/s", "rad/s", "rad/s"),
        ),
    ),
    rewards=(Reward("forward", forward_speed), Reward("alive", alive), Reward("effort", effort, -1e-3)),
    terminated=fallen,
    reset=uniform_start,
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
