"""DDIM (Song et al. 2021) with the floors of DPPO (Ren et al. 2024): fewer steps than noise levels, noise times eta.

    x0    = clip((x - sqrt(1 - abar) eps(x, t)) / sqrt(abar)),   eps' = (x - sqrt(abar) x0) / sqrt(1 - abar)
    std   = eta sqrt((1 - abar') / (1 - abar)) sqrt(1 - abar / abar')
    mean  = sqrt(abar') x0 + sqrt(1 - abar' - std^2) eps'

abar' is that of the next level on the way, T / K levels cleaner; the std is floored after the mean is formed.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from robo_rlft.policies.chains.base import Chunk, Normal
from robo_rlft.policies.chains.diffusion import Diffusion
from robo_rlft.policies.condition import Cond


class DDIM(Diffusion):
    """K of T levels, evenly spaced. Deterministically it is the sampler of eta = 0."""

    def transition(self, network: nn.Module, cond: Cond, x: Chunk, t: Float[Tensor, " batch"]) -> Normal:
        """The step with eta, its std at least `score_std_min`."""
        step = self._step(network, cond, x, t, torch.ones_like(t))
        return self._floored(step, self.config.score_std_min)

    def move(
        self, network: nn.Module, cond: Cond, x: Chunk, t: Float[Tensor, " batch"], random: Bool[Tensor, " batch"]
    ) -> Normal:
        """The step with eta and a std of at least `sample_std_min` in random rows, with eta = 0 in the others."""
        share = random.to(x.dtype)
        step = self._floored(self._step(network, cond, x, t, share), self.config.sample_std_min)
        return Normal(step.mean, step.std * share[:, None, None])

    def _step(
        self, network: nn.Module, cond: Cond, x: Chunk, t: Float[Tensor, " batch"], share: Float[Tensor, " batch"]
    ) -> Normal:
        action, kept, after = self._predict(network, cond, x, t)
        noise = (x - kept.sqrt() * action) / (1 - kept).sqrt()
        eta = self.config.eta * share[:, None, None]
        std = eta * ((1 - after) / (1 - kept) * (1 - kept / after)).sqrt()
        return Normal(after.sqrt() * action + (1 - after - std**2).clamp(min=0).sqrt() * noise, std)
