"""The MLP: everything flat in one vector. The network of DPPO's and ReinFlow's state-based experiments."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from robo_rlft.policies.condition import Cond
from robo_rlft.policies.config import NetworkConfig
from robo_rlft.policies.networks.layers import TimeEmbedding, hidden, mlp


class MLPVelocity(nn.Module):
    """Velocity of a chunk from the concatenation of chunk, time embedding and condition.

    Args:
        config: widths.
        event: (chunk length H, action width A).
        cond_width: width of the condition.

    Attributes:
        feature_width: width of the last hidden layer.
    """

    def __init__(self, config: NetworkConfig, event: tuple[int, int], cond_width: int) -> None:
        super().__init__()
        self.event = event
        self.time = TimeEmbedding(config.time_dim)
        self.feature_width = config.hidden[-1]
        size = event[0] * event[1]
        self.net = mlp(size + config.time_dim + cond_width, config.hidden, size, last_scale=config.last_scale)

    def forward(
        self, x: Float[Tensor, "batch chunk action"], t: Float[Tensor, " batch"], cond: Cond
    ) -> Float[Tensor, "batch chunk action"]:
        """Velocity at (x, t)."""
        return self.net(self._inputs(x, t, cond)).unflatten(-1, self.event)

    def velocity_and_features(
        self, x: Float[Tensor, "batch chunk action"], t: Float[Tensor, " batch"], cond: Cond
    ) -> tuple[Float[Tensor, "batch chunk action"], Float[Tensor, "batch feature"]]:
        """Velocity at (x, t) and the last hidden layer."""
        features = hidden(self.net, self._inputs(x, t, cond))
        return self.net[-1](features).unflatten(-1, self.event), features

    def _inputs(self, x: Tensor, t: Tensor, cond: Cond) -> Float[Tensor, "batch input"]:
        return torch.cat([x.flatten(1), self.time(t), cond.vector], dim=-1)
