"""A small vision transformer, trained from scratch (Dosovitskiy et al. 2021), its tokens kept as a map."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from robo_rlft.errors import ConfigError
from robo_rlft.policies.config import EncoderConfig


class VisionTransformer(nn.Module):
    """Patches, learned positions, `depth` pre-norm layers.

    Args:
        config: `width` of the tokens, `depth`, `heads`, `patch`.
        size: (height, width) of the images, multiples of the patch.

    Raises:
        ConfigError: the image is no multiple of the patch, or the width none of the heads.
    """

    def __init__(self, config: EncoderConfig, size: tuple[int, int]) -> None:
        super().__init__()
        if any(side % config.patch for side in size):
            raise ConfigError(
                f"images of {size[0]} x {size[1]} do not divide into patches of policy.encoder.patch={config.patch}"
            )
        if config.width % config.heads:
            raise ConfigError(
                f"policy.encoder.width={config.width} is no multiple of policy.encoder.heads={config.heads}"
            )
        self.grid = (size[0] // config.patch, size[1] // config.patch)
        self.patch = nn.Conv2d(3, config.width, config.patch, config.patch)
        self.position = nn.Parameter(0.02 * torch.randn(self.grid[0] * self.grid[1], config.width))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                config.width, config.heads, 4 * config.width, dropout=0.0, activation="gelu", batch_first=True,
                norm_first=True,
            )
            for _ in range(config.depth)
        )  # fmt: skip
        self.norm = nn.LayerNorm(config.width)

    def forward(self, x: Float[Tensor, "batch rgb height width"]) -> Float[Tensor, "batch channel h w"]:
        """The tokens where their patches lie."""
        tokens = self.patch(x).flatten(2).transpose(1, 2) + self.position
        for layer in self.layers:
            tokens = layer(tokens)
        return self.norm(tokens).transpose(1, 2).unflatten(2, self.grid)


def trunk(config: EncoderConfig, size: tuple[int, int]) -> nn.Module:
    """The transformer as a trunk."""
    return VisionTransformer(config, size)
