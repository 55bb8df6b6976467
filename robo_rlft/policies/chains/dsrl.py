"""DSRL (Wagenmaker et al. 2025): the flow stays frozen, and reinforcement learning chooses the noise it starts from.

    x_0 ~ N( mu(obs), sigma^2 ),   mu = b tanh(MLP(obs)),   then x_{k+1} = clip(x_k + v(x_k, t_k) / K)

mu = 0 and sigma = 1 at first, so that fine-tuning begins as the cloned policy. The published method learns mu
off-policy (SAC); here the start is the action of PPO.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from robo_rlft.policies.chains.base import Chunk, Normal
from robo_rlft.policies.chains.euler import Euler
from robo_rlft.policies.condition import Cond
from robo_rlft.policies.config import ChainConfig
from robo_rlft.policies.networks.layers import mlp
from robo_rlft.policies.precision import computing_in


class DSRL(Euler):
    """Euler's method from a learned Gaussian start, the only point that is scored.

    sigma is one number per entry of x_0, not of the state. The bound holds for mu, where the policy acts without
    exploration; x_0 itself is as free as the noise the flow was trained with. Without exploration x_0 = mu.
    """

    has_likelihood = True
    starts_from_noise = False
    learns_start = True
    freezes_network = True

    def __init__(self, config: ChainConfig, event: tuple[int, int], cond_width: int, feature_width: int = 0) -> None:
        super().__init__(config, event, cond_width, feature_width)
        self.window = self.scored_steps = 1
        self.steer = mlp(cond_width, config.noise_hidden, event[0] * event[1], last_scale=0.0)
        self.log_std = nn.Parameter(torch.zeros(event))

    def start(self, cond: Cond, like: Chunk) -> Normal:
        """N(mu(obs), sigma^2); its gradient stops at the condition."""
        with computing_in(self.config.precision, like.device):
            raw = self.steer(cond.vector.detach()).to(like.dtype)
        mean = self.config.noise_bound * torch.tanh(raw).unflatten(-1, self.event)
        return Normal(mean, self.log_std.exp().expand_as(mean))

    def _scored_points(self, noise: Float[Tensor, "point env chunk action"]) -> Bool[Tensor, "point env"]:
        scored = torch.zeros(self.steps + 1, noise.shape[1], dtype=torch.bool, device=noise.device)
        scored[0] = True
        return scored
