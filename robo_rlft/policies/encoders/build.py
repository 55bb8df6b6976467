"""Encoders by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from robo_rlft.errors import ConfigError, unknown_name
from robo_rlft.policies.config import POOLS, EncoderConfig
from robo_rlft.policies.encoders import efficientnet, resnet, vit
from robo_rlft.policies.encoders.image import ImageEncoder

ENCODERS: dict[str, Callable[[EncoderConfig, tuple[int, int]], nn.Module]] = {
    "resnet": resnet.trunk,
    "vit": vit.trunk,
    "efficientnet": efficientnet.trunk,
}


def build_encoder(config: EncoderConfig, size: tuple[int, int]) -> ImageEncoder:
    """The encoder of one camera.

    Args:
        config: which one and how large.
        size: (height, width) of its images.

    Raises:
        ConfigError: an unknown name, or images that do not fit.
        MissingExtraError: `efficientnet` without its weights.
    """
    if config.name not in ENCODERS:
        raise ConfigError(unknown_name("policy.encoder.name", config.name, ENCODERS))
    if config.pool not in POOLS:
        raise ConfigError(unknown_name("policy.encoder.pool", config.pool, POOLS))
    return ImageEncoder(config, ENCODERS[config.name](config, size), size)
