"""How one episode looks: colours, lights and cameras drawn from the episode's own seed, apart from its physics.

The draw starts from the state of the environment's generator at the episode's start and leaves that generator alone, so
that the same seed gives the same physics with and without randomised images.
"""

from __future__ import annotations

from collections.abc import Mapping

import mujoco
import numpy as np
from jaxtyping import Float, UInt64

from robo_rlft.envs.randomise import RandomiseConfig

Visuals = Mapping[str, np.ndarray]
"""Fields of MjModel by name, for one environment."""
STREAM = 0x76697375
"""Keeps these draws apart from any other made from the same generator's state."""
LIGHT_M, BRIGHTNESS = 0.5, 0.5
CAMERA_M, CAMERA_RAD, ZOOM = 0.02, np.deg2rad(3.0), 0.1
_UNSET_RGBA = (0.5, 0.5, 0.5, 1.0)
"""MuJoCo's default colour of a geom: it then shows that of its material."""


def draw(model: mujoco.MjModel, episode: UInt64[np.ndarray, " word"], scale: RandomiseConfig) -> Visuals:
    """The fields that an episode changes.

    Args:
        model: how the world looks without randomisation.
        episode: packed state of the environment's generator at the episode's start.
        scale: how much varies.
    """
    rng = np.random.default_rng([STREAM, *(int(word) for word in episode)])
    # Every draw is made whatever the scales, so that one of them does not change what the others give.
    return {
        **_colours(rng, model, scale.colour),
        **_lights(rng, model, scale.light),
        **_poses(rng, model, scale.camera),
    }


def apply(model: mujoco.MjModel, visuals: Visuals) -> None:
    """Write an episode's fields into a model."""
    for name, values in visuals.items():
        getattr(model, name)[:] = values


def _colours(rng: np.random.Generator, model: mujoco.MjModel, scale: float) -> Visuals:
    materials, geoms = _towards(rng, model.mat_rgba, scale), _towards(rng, model.geom_rgba, scale)
    unset = np.isclose(model.geom_rgba, _UNSET_RGBA).all(1) & (model.geom_matid >= 0)
    return {"mat_rgba": materials, "geom_rgba": np.where(unset[:, None], model.geom_rgba, geoms)}


def _towards(rng: np.random.Generator, rgba: np.ndarray, scale: float) -> Float[np.ndarray, "row 4"]:
    """What has one colour keeps one colour: the sides of a part stay a part."""
    _, kind = np.unique(rgba, axis=0, return_inverse=True)
    goal = rng.uniform(0.0, 1.0, (len(rgba), 3))[kind.reshape(-1)]
    mixed = rgba.copy()
    mixed[:, :3] += scale * (goal - rgba[:, :3])
    return mixed


def _lights(rng: np.random.Generator, model: mujoco.MjModel, scale: float) -> Visuals:
    moved = model.light_pos + scale * LIGHT_M * rng.uniform(-1.0, 1.0, model.light_pos.shape)
    gain = 1.0 + scale * BRIGHTNESS * rng.uniform(-1.0, 1.0, (model.nlight, 1))
    return {"light_pos": moved, "light_diffuse": model.light_diffuse * gain}


def _poses(rng: np.random.Generator, model: mujoco.MjModel, scale: float) -> Visuals:
    moved = model.cam_pos + scale * CAMERA_M * rng.uniform(-1.0, 1.0, model.cam_pos.shape)
    turns = scale * CAMERA_RAD * rng.uniform(-1.0, 1.0, (model.ncam, 3))
    zoom = 1.0 + scale * ZOOM * rng.uniform(-1.0, 1.0, model.ncam)
    quat = model.cam_quat.copy()
    for row, turn in zip(quat, turns, strict=True):
        mujoco.mju_quatIntegrate(row, turn, 1.0)
    return {"cam_pos": moved, "cam_quat": quat, "cam_fovy": model.cam_fovy * zoom}
