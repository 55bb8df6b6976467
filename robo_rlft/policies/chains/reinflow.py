"""ReinFlow (Zhang et al. 2025): learned, bounded noise turns the flow's Euler steps into a Markov chain with a density.

    x_{k+1} ~ N( clip(x_k + v(x_k, t_k) / K),  sigma_phi(t_k, obs)^2 )

sigma comes from a small network of time and condition; its log-variance is squashed between the bounds.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from robo_rlft.errors import ConfigError
from robo_rlft.policies.chains.base import Chain, Chunk, Normal
from robo_rlft.policies.condition import Cond
from robo_rlft.policies.config import ChainConfig
from robo_rlft.policies.networks.layers import mlp, sinusoid
from robo_rlft.policies.precision import computing_in

TIME_FEATURES = 16


class ReinFlow(Chain):
    """Euler steps plus learned noise.

    The upper bound of the noise anneals over the fine-tuning: held, then a cosine down (`set_progress`).
    """

    std_bound: Tensor

    def __init__(self, config: ChainConfig, event: tuple[int, int], cond_width: int, feature_width: int = 0) -> None:
        super().__init__(config, event, cond_width, feature_width)
        if not 0 < config.std_min <= config.std_max:
            raise ConfigError(
                f"policy.chain: need 0 < std_min <= std_max, got {config.std_min:g} and {config.std_max:g}"
            )
        self.reads_features = feature_width > 0
        inputs = self.noise_inputs(cond_width, feature_width)
        self.noise = mlp(inputs, config.noise_hidden, event[0] * event[1], last_scale=0.1)
        self.register_buffer("std_bound", torch.tensor(float(config.std_max)))

    @classmethod
    def noise_inputs(cls, cond_width: int, feature_width: int) -> int:
        """Width of what the noise network reads: time and condition."""
        del feature_width
        return TIME_FEATURES + cond_width

    def transition(self, network: nn.Module, cond: Cond, x: Chunk, t: Float[Tensor, " batch"]) -> Normal:
        """The Euler step with the learned standard deviation."""
        return Normal(self.drift(network, cond, x, t), self.std(cond, t))

    def std(self, cond: Cond, t: Float[Tensor, " batch"]) -> Chunk:
        """Standard deviation within its bounds; its gradient stops at the condition."""
        return self.std_from(torch.cat([sinusoid(t, TIME_FEATURES), cond.vector.detach()], dim=-1))

    def std_from(self, features: Float[Tensor, "batch feature"]) -> Chunk:
        """Standard deviation from what the noise network reads."""
        with computing_in(self.config.precision, features.device):
            raw = self.noise(features).to(features.dtype)
        low, high = 2 * math.log(self.config.std_min), 2 * self.std_bound.log()
        log_var = low + (high - low) * (torch.tanh(raw) + 1) / 2
        return (0.5 * log_var).exp().unflatten(-1, self.event)

    def set_progress(self, fraction: float, hold: float, final: float) -> None:
        """Anneal the upper bound from std_max to std_min + final * (std_max - std_min)."""
        x = min(max((fraction - hold) / max(1 - hold, 1e-9), 0.0), 1.0)
        share = final + (1 - final) * 0.5 * (1 + math.cos(math.pi * x))
        self.std_bound.fill_(self.config.std_min + share * (self.config.std_max - self.config.std_min))
