"""What the five locomotion tasks share: Gymnasium's models, its start noise, and the terms it computes alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import gymnasium
import mujoco
import numpy as np

from robo_rlft.envs.mujoco.task import Params

ASSETS = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"


def gymnasium_model(file: str) -> Callable[[Params], mujoco.MjModel]:
    """Loads one of Gymnasium's packaged models."""
    return lambda params: mujoco.MjModel.from_xml_path(str(ASSETS / file))


def uniform_start(rng: np.random.Generator, model: mujoco.MjModel, params: Params) -> Mapping[str, np.ndarray]:
    """Default pose and rest, each entry with uniform noise within ± `reset_noise_scale`."""
    scale = params["reset_noise_scale"]
    qpos = model.qpos0 + rng.uniform(-scale, scale, model.nq)
    return {"qpos": qpos, "qvel": rng.uniform(-scale, scale, model.nv)}
