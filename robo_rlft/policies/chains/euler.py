"""The deterministic flow: Euler's method on dx/dt = v(x, t). What behaviour cloning trains and evaluates."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from robo_rlft.policies.chains.base import Chain, Chunk, Normal
from robo_rlft.policies.condition import Cond


class Euler(Chain):
    """x_{k+1} = x_k + v(x_k, t_k) / K. A sampler without a likelihood."""

    has_likelihood = False
    stochastic = False

    def transition(self, network: nn.Module, cond: Cond, x: Chunk, t: Float[Tensor, " batch"]) -> Normal:
        """The Euler step with std 0."""
        mean = self.drift(network, cond, x, t)
        return Normal(mean, torch.zeros_like(mean))
