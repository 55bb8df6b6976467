"""Experts that drive a MetaDrive car: the PPO policy that comes with MetaDrive, and the intelligent driver model."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Protocol

import metadrive
import numpy as np
from jaxtyping import Float
from metadrive.obs.state_obs import LidarStateObservation
from metadrive.policy.idm_policy import IDMPolicy, TrajectoryIDMPolicy

Action = Float[np.ndarray, " 2"]
_DETECTORS = {
    "lidar": {
        "num_lasers": 240,
        "distance": 50,
        "num_others": 4,
        "gaussian_noise": 0.0,
        "dropout_prob": 0.0,
        "add_others_navi": False,
    },
    "side_detector": {"num_lasers": 0, "distance": 50, "gaussian_noise": 0.0, "dropout_prob": 0.0},
    "lane_line_detector": {"num_lasers": 0, "distance": 20, "gaussian_noise": 0.0, "dropout_prob": 0.0},
}
"""What the PPO expert was trained to see."""
_MIRRORED = (10, 15)
"""Entries whose sign MetaDrive changed after its expert was trained."""


class Adviser(Protocol):
    """Drives one car through one episode."""

    def act(self) -> Action:
        """Steering and throttle now. Once a control step: it may remember."""
        ...


class PPOAdviser:
    """MetaDrive's PPO expert, its mean action.

    Args:
        world: MetaDrive's environment.
        vehicle: the car it drives.
    """

    def __init__(self, world: Any, vehicle: Any) -> None:
        config = world.config.copy()
        config["vehicle_config"].update(_DETECTORS)
        self._seen, self._vehicle = LidarStateObservation(config), vehicle

    def act(self) -> Action:
        """See `Adviser`."""
        obs = self._observe().astype(np.float64)
        obs[list(_MIRRORED)] = 1.0 - obs[list(_MIRRORED)]
        weights = _weights()
        for layer in ("fc_1", "fc_2"):
            obs = np.tanh(obs @ weights[f"{layer}/kernel"] + weights[f"{layer}/bias"])
        out = obs @ weights["fc_out/kernel"] + weights["fc_out/bias"]
        return out[:2]

    def _observe(self) -> np.ndarray:
        """With the expert's detectors on the car instead of its own."""
        own = self._vehicle.config.copy()
        self._vehicle.config.update(_DETECTORS)
        try:
            return self._seen.observe(self._vehicle)
        finally:
            self._vehicle.config.update(own)


class IDMAdviser:
    """The driver model of MetaDrive's traffic in the learner's place, along lanes or a recorded trajectory."""

    def __init__(self, world: Any, vehicle: Any, seed: int) -> None:
        route = getattr(world.engine.map_manager, "current_sdc_route", None)
        self._arguments: tuple[bool, ...] = () if route is None else (True,)
        self._policy = IDMPolicy(vehicle, seed) if route is None else TrajectoryIDMPolicy(vehicle, seed, route)

    def act(self) -> Action:
        """See `Adviser`."""
        return np.asarray(self._policy.act(*self._arguments), np.float64)


def make_adviser(name: str, world: Any, vehicle: Any, seed: int) -> Adviser:
    """The expert `ppo` or `idm` for a car whose episode has just begun, or is going on."""
    return PPOAdviser(world, vehicle) if name == "ppo" else IDMAdviser(world, vehicle, seed)


@cache
def _weights() -> dict[str, np.ndarray]:
    path = Path(metadrive.__file__).parent / "examples" / "ppo_expert" / "expert_weights.npz"
    prefix = "default_policy/"
    return {k.removeprefix(prefix): v.astype(np.float64) for k, v in np.load(path).items() if k.startswith(prefix)}
