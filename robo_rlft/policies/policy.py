"""The policy: normaliser -> condition -> chain of velocities -> chunk of actions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from robo_rlft.errors import ConfigError, SpecError
from robo_rlft.policies.chains import Path, PathScore, build_chain, chain_type
from robo_rlft.policies.condition import Cond
from robo_rlft.policies.config import PolicyConfig
from robo_rlft.policies.encoders import ImageEncoder, build_encoder, random_shift
from robo_rlft.policies.networks import build_network
from robo_rlft.policies.normaliser import Affine, fit
from robo_rlft.spec import IMAGE_PREFIX, ArraySpec, RobotSpec

Obs = Mapping[str, Tensor]
"""Observation groups with history: [N, obs_horizon, ...]."""
Statistics = Mapping[str, Mapping[str, np.ndarray]]
"""Per observation key and for "action": arrays mean, std, min, max."""


class Policy(nn.Module):
    """Maps observations in the robot's units to chunks of actions in the robot's units.

    Args:
        config: network, chain, encoder, horizons, normalisers.
        robot: what the robot offers; widths come from here.

    Attributes:
        vector_keys: observations it normalises.
        image_keys: observations it encodes.

    Raises:
        ConfigError: settings that do not fit together.
        SpecError: an observation the robot does not have.
    """

    def __init__(self, config: PolicyConfig, robot: RobotSpec) -> None:
        super().__init__()
        if not 1 <= config.execute <= config.chunk:
            raise ConfigError(f"policy.execute {config.execute} must be between 1 and policy.chunk {config.chunk}")
        self.config = config
        self.robot = _without_unread_images(robot, config.obs_keys)
        self.event = (config.chunk, robot.action.shape[0])
        self.image_keys = [key for key in config.obs_keys if key.startswith(IMAGE_PREFIX)]
        self.vector_keys = [key for key in config.obs_keys if key not in self.image_keys]
        widths = {key: _vector_width(key, robot) for key in self.vector_keys}
        self.obs_norm = nn.ModuleDict({_slot(k): Affine(w, config.obs_clip) for k, w in widths.items()})
        self.action_norm = Affine(self.event[1])
        sizes = {key: _image_size(key, robot) for key in self.image_keys}
        self.encoders = nn.ModuleDict({_slot(k): build_encoder(config.encoder, s) for k, s in sizes.items()})
        features = len(self.image_keys) * config.encoder.features
        self.cond_width = config.obs_horizon * (sum(widths.values()) + features)
        told_width = self.cond_width + chain_type(config.chain).extra_width
        self.network = build_network(config.network, self.event, told_width)
        feature_width = getattr(self.network, "feature_width", 0)
        self.chain = build_chain(config.chain, self.event, self.cond_width, feature_width)

    def fit_normaliser(self, statistics: Statistics) -> None:
        """Set the normalisers of observations and actions from data."""
        self.fit_observation(statistics)
        self.fit_action(statistics)

    def fit_observation(self, statistics: Statistics) -> None:
        """Set the observation normalisers only; images have none."""
        for key in self.vector_keys:
            fit(self.obs_affine(key), self.config.obs_normaliser, statistics.get(key), self.robot.observation[key])

    def fit_action(self, statistics: Statistics) -> None:
        """Set the action normaliser only; the mode `bounds` needs no statistics."""
        fit(self.action_norm, self.config.action_normaliser, statistics.get("action"), self.robot.action)

    def encode(self, obs: Obs) -> Cond:
        """Condition from observations with history: vectors [N, obs_horizon, width], images [N, obs_horizon, h, w, 3].

        The features of vectors come first, then those of each camera.

        Raises:
            SpecError: a key is missing, or has the wrong shape or type.
        """
        for key in self.config.obs_keys:
            self._check(key, obs)
        parts = [self.obs_affine(key)(obs[key]).flatten(1) for key in self.vector_keys]
        parts += [self._features(key, obs[key]) for key in self.image_keys]
        return Cond(torch.cat(parts, dim=-1))

    @property
    def noise_points(self) -> int:
        """Points of noise that `sample` takes: x_0, one per step and what the chain takes beside."""
        return self.chain.steps + 1 + self.chain.extra_noise

    @property
    def evaluation_noise(self) -> tuple[int, ...]:
        """Shape of the noise one evaluated chunk takes: x_0 alone, as a plain policy is followed deterministically."""
        return self.event

    @property
    def network_calls(self) -> dict[str, int]:
        """What one evaluated chunk of one robot costs: calls of the velocity network, and of a critic."""
        return {"velocity": self.chain.steps, "critic": 0}

    def augment(self, obs: Obs, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Observations for one step of cloning: each image randomly shifted, the rest as it is."""
        pad = self.config.encoder.shift
        return {k: random_shift(v, pad, generator) if k in self.image_keys else v for k, v in obs.items()}

    def draw_noise(
        self, rows: int, generator: torch.Generator | None = None
    ) -> Float[Tensor, "point env chunk action"]:
        """Standard normal noise for `sample`, `noise_points` of it, on the policy's device."""
        like = self.action_norm.scale
        size = (self.noise_points, rows, *self.event)
        # Drawn where the generator lives: an update shuffles and draws on the processor, whatever the policy's device.
        source = generator.device if generator is not None else like.device
        return torch.randn(size, generator=generator, device=source, dtype=like.dtype).to(like.device)

    def sample(self, cond: Cond, noise: Float[Tensor, "point env chunk action"], deterministic: bool = False) -> Path:
        """Draw one path per row of the condition; `deterministic` follows the means (see `Chain.sample`)."""
        return self.chain.sample(self.network, cond, noise, deterministic)

    def score(self, cond: Cond, path: Path, fold_rows: int = 0) -> PathScore:
        """Likelihood of paths under the present parameters (see `Chain.score`)."""
        return self.chain.score(self.network, cond, path, fold_rows)

    def to_robot(self, action: Float[Tensor, "*batch action"]) -> Float[Tensor, "*batch action"]:
        """Normalised actions to the robot's units."""
        return self.action_norm.inverse(action)

    def act(
        self, obs: Obs, generator: torch.Generator | None = None, deterministic: bool = True
    ) -> Float[Tensor, "env chunk action"]:
        """Chunks of actions in the robot's units for observations with history."""
        cond = self.encode(obs)
        path = self.sample(cond, self.draw_noise(len(cond), generator), deterministic)
        return self.to_robot(path.action)

    def obs_affine(self, key: str) -> Affine:
        """Normaliser of one observation key."""
        module = self.obs_norm[_slot(key)]
        assert isinstance(module, Affine)
        return module

    def _features(
        self, key: str, images: UInt8[Tensor, "env horizon height width rgb"]
    ) -> Float[Tensor, "env feature"]:
        encoder = self.encoders[_slot(key)]
        assert isinstance(encoder, ImageEncoder)
        return encoder(images.flatten(0, 1)).view(-1, self.config.obs_horizon * encoder.width)

    def _check(self, key: str, obs: Obs) -> None:
        if key not in obs:
            raise SpecError(f"the policy reads observation '{key}', got only {sorted(obs)}")
        expected = (self.config.obs_horizon, *self.robot.observation[key].shape)
        if tuple(obs[key].shape[1:]) != expected:
            raise SpecError(
                f"observation '{key}': expected [N, {', '.join(map(str, expected))}], got {list(obs[key].shape)}"
            )
        if key in self.image_keys and obs[key].dtype != torch.uint8:
            raise SpecError(f"observation '{key}': images are uint8, got {obs[key].dtype}")


def _slot(key: str) -> str:
    """A module name for an observation key."""
    return key.replace("/", "_").replace(".", "_")


def _without_unread_images(robot: RobotSpec, keys: list[str]) -> RobotSpec:
    """What the policy asks of an environment: nobody shall render what it does not look at."""
    kept = {k: v for k, v in robot.observation.items() if k in keys or not k.startswith(IMAGE_PREFIX)}
    return replace(robot, observation=kept)


def _vector_width(key: str, robot: RobotSpec) -> int:
    shape = _offered(key, robot).shape
    if len(shape) != 1:
        raise SpecError(
            f"observation '{key}' has shape {list(shape)}: policies read vectors, and images called "
            f"'{IMAGE_PREFIX}<camera>'; leave it out of policy.obs_keys"
        )
    return shape[0]


def _image_size(key: str, robot: RobotSpec) -> tuple[int, int]:
    spec = _offered(key, robot)
    if len(spec.shape) != 3 or spec.shape[2] != 3 or spec.dtype != "uint8":
        raise SpecError(f"observation '{key}' is {spec.dtype} {list(spec.shape)}: images are uint8 [height, width, 3]")
    return spec.shape[0], spec.shape[1]


def _offered(key: str, robot: RobotSpec) -> ArraySpec:
    if key not in robot.observation:
        hint = "; name the camera in env.images.cameras" if key.startswith(IMAGE_PREFIX) else ""
        raise SpecError(f"policy.obs_keys names '{key}', {robot.env_id} offers {sorted(robot.observation)}{hint}")
    return robot.observation[key]
