"""What the five locomotion tasks share: Gymnasium's models, its start noise, and the terms it computes alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np

from robo_rlft.envs.mujoco.task import Array, ConditionFn, Params, RewardFn, State

ASSETS = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"
FREE_JOINT_POSITION = ("z", "quat_w", "quat_x", "quat_y", "quat_z")
FREE_JOINT_VELOCITY = ("vx", "vy", "vz", "roll_rate", "pitch_rate", "yaw_rate")
PLANAR_VELOCITY = ("vx", "vz", "pitch_rate")
WRENCH = ("torque_x", "torque_y", "torque_z", "force_x", "force_y", "force_z")


def gymnasium_model(file: str) -> Callable[[Params], mujoco.MjModel]:
    """Loads one of Gymnasium's packaged models."""
    return lambda params: mujoco.MjModel.from_xml_path(str(ASSETS / file))


def uniform_start(rng: np.random.Generator, model: mujoco.MjModel, params: Params) -> Mapping[str, np.ndarray]:
    """Default pose at rest, with uniform noise within ± `reset_noise_scale` on every entry."""
    scale = params["reset_noise_scale"]
    qpos = model.qpos0 + rng.uniform(-scale, scale, model.nq)
    return {"qpos": qpos, "qvel": rng.uniform(-scale, scale, model.nv)}


def normal_velocity_start(rng: np.random.Generator, model: mujoco.MjModel, params: Params) -> Mapping[str, np.ndarray]:
    """Default pose with uniform noise, velocities normal with standard deviation `reset_noise_scale`."""
    scale = params["reset_noise_scale"]
    qpos = model.qpos0 + rng.uniform(-scale, scale, model.nq)
    return {"qpos": qpos, "qvel": scale * rng.standard_normal(model.nv)}


def planar_position(xp: Any, state: State, params: Params) -> Array:
    """All positions but the distance travelled."""
    return state.data["qpos"][:, 1:]


def spatial_position(xp: Any, state: State, params: Params) -> Array:
    """All positions but those in the plane."""
    return state.data["qpos"][:, 2:]


def velocity(xp: Any, state: State, params: Params) -> Array:
    """All generalised velocities."""
    return state.data["qvel"]


def clipped_velocity(xp: Any, state: State, params: Params) -> Array:
    """All generalised velocities, clipped to ± 10."""
    return xp.minimum(xp.maximum(state.data["qvel"], -10.0), 10.0)


def planar_speed(control_period_s: float) -> RewardFn:
    """Reward: mean speed along x over the control step, m/s, from the root's slide joint."""

    def forward(xp: Any, state: State, action: Array, params: Params) -> Array:
        return (state.data["qpos"][:, 0] - state.previous["qpos"][:, 0]) / control_period_s

    return forward


def effort(xp: Any, state: State, action: Array, params: Params) -> Array:
    """Cost: sum of squared actions."""
    return xp.square(action).sum(-1)


def alive(healthy: ConditionFn) -> RewardFn:
    """Reward: 1 while healthy."""
    return lambda xp, state, action, params: xp.where(healthy(xp, state, params), 1.0, 0.0)


def contact_forces(xp: Any, state: State, params: Params) -> Array:
    """External torque and force on each body, in the frame of the tree's centre of mass."""
    return flat(xp, state.data["cfrc_ext"])


def flat(xp: Any, bodies: Array) -> Array:
    """Per-body vectors as one row per environment, the world body left out."""
    return bodies[:, 1:].reshape(bodies.shape[0], -1)


def per_body(bodies: tuple[str, ...], entries: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the entries of `flat`."""
    return tuple(f"{body}.{entry}" for body in bodies for entry in entries)


def rates(joints: tuple[str, ...]) -> tuple[str, ...]:
    """Names of joint velocities."""
    return tuple(f"{joint}_rate" for joint in joints)
