"""A transformer over the chunk with adaptive layer norm (DiT, Peebles & Xie 2023)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from robo_rlft.policies.condition import Cond
from robo_rlft.policies.config import NetworkConfig
from robo_rlft.policies.networks.layers import TimeEmbedding


class Block(nn.Module):
    """Self-attention and an MLP, each modulated by the condition (scale, shift) and gated; gates start at zero."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(
        self, x: Float[Tensor, "batch chunk width"], cond: Float[Tensor, "batch width"]
    ) -> Float[Tensor, "batch chunk width"]:
        """One layer."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(cond).unsqueeze(1).chunk(6, dim=-1)
        x = x + gate1 * self._attend(self.norm(x) * (1 + scale1) + shift1)
        return x + gate2 * self.mlp(self.norm(x) * (1 + scale2) + shift2)

    def _attend(self, x: Float[Tensor, "batch chunk width"]) -> Float[Tensor, "batch chunk width"]:
        b, h, w = x.shape
        q, k, v = self.qkv(x).view(b, h, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).reshape(b, h, w))


class TransformerVelocity(nn.Module):
    """Velocity of a chunk, one token per action.

    Args:
        config: `width` (a multiple of `heads`), `depth` layers, `heads`.
        event: (chunk length H, action width A).
        cond_width: width of the condition.

    Attributes:
        feature_width: width of the tokens.
    """

    def __init__(self, config: NetworkConfig, event: tuple[int, int], cond_width: int) -> None:
        super().__init__()
        self.feature_width = width = config.width
        self.time = TimeEmbedding(config.time_dim)
        self.cond = nn.Sequential(
            nn.Linear(config.time_dim + cond_width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )
        self.token = nn.Linear(event[1], width)
        self.position = nn.Parameter(0.02 * torch.randn(event[0], width))
        self.blocks = nn.ModuleList(Block(width, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)
        self.tail = nn.Linear(width, event[1])
        # Zero gates and a zero tail would stop every gradient but the tail's; a small tail starts near zero velocity.
        nn.init.normal_(self.tail.weight, std=0.01)
        nn.init.zeros_(self.tail.bias)

    def forward(
        self, x: Float[Tensor, "batch chunk action"], t: Float[Tensor, " batch"], cond: Cond
    ) -> Float[Tensor, "batch chunk action"]:
        """Velocity at (x, t)."""
        return self.tail(self._tokens(x, t, cond))

    def velocity_and_features(
        self, x: Float[Tensor, "batch chunk action"], t: Float[Tensor, " batch"], cond: Cond
    ) -> tuple[Float[Tensor, "batch chunk action"], Float[Tensor, "batch feature"]]:
        """Velocity at (x, t) and the mean of the last layer's tokens."""
        tokens = self._tokens(x, t, cond)
        return self.tail(tokens), tokens.mean(dim=1)

    def _tokens(self, x: Tensor, t: Tensor, cond: Cond) -> Float[Tensor, "batch chunk width"]:
        feature = self.cond(torch.cat([self.time(t), cond.vector], dim=-1))
        h = self.token(x) + self.position + feature[:, None]
        for block in self.blocks:
            h = block(h, feature)
        return self.norm(h)
