"""Flow-SDE (piRL, Chen et al. 2025; Flow-GRPO, Liu et al. 2025): the flow's ODE as an SDE with the same marginals.

    data_hat = x + (1 - t) v,   noise_hat = x - t v,   s = a sqrt((1 - t) / t),   d = 1 / K
    mean     = data_hat (t + d) + noise_hat (1 - t - d - s^2 d / (2 (1 - t))),    std = s sqrt(d)

At t = 0, where s would be infinite, t is replaced by d in s. Nothing is learned beside the velocity. The marginals of
the chain are those of the flow only for many steps.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from robo_rlft.policies.chains.base import Chain, Chunk, Normal, uniform
from robo_rlft.policies.condition import Cond
from robo_rlft.policies.config import ChainConfig


class FlowSDE(Chain):
    """One random step per chunk, drawn anew for every row, the others by Euler's method; or all of them random.

    `Path.scored` says which steps were random. Starting noise is part of the environment and not scored.
    """

    scores_start = False

    def __init__(self, config: ChainConfig, event: tuple[int, int], cond_width: int, feature_width: int = 0) -> None:
        super().__init__(config, event, cond_width, feature_width)
        self.one = config.sde_steps == "one"
        self.scored_steps = 1 if self.one else self.steps
        self.extra_noise = 1 if self.one else 0

    def transition(self, network: nn.Module, cond: Cond, x: Chunk, t: Float[Tensor, " batch"]) -> Normal:
        """The step of the SDE."""
        return self._step(x, self._velocity(network, cond, x, t), t)

    def move(
        self, network: nn.Module, cond: Cond, x: Chunk, t: Float[Tensor, " batch"], random: Bool[Tensor, " batch"]
    ) -> Normal:
        """The step of the SDE in random rows, Euler's in the others."""
        velocity = self._velocity(network, cond, x, t)
        step, here = self._step(x, velocity, t), random[:, None, None]
        return Normal(torch.where(here, step.mean, self._bounded(x + velocity / self.steps)), step.std * here)

    def _step(self, x: Chunk, velocity: Chunk, t: Float[Tensor, " batch"]) -> Normal:
        w, d = t[:, None, None], 1 / self.steps
        variance = self.config.sde_noise**2 * (1 - w) / w.clamp(min=d)
        data, noise = x + (1 - w) * velocity, x - w * velocity
        mean = data * (w + d) + noise * (1 - w - d - variance * d / (2 * (1 - w)))
        return Normal(self._bounded(mean), (variance.sqrt() * math.sqrt(d)).expand_as(mean))

    def _scored_points(self, noise: Float[Tensor, "point env chunk action"]) -> Bool[Tensor, "point env"]:
        scored = super()._scored_points(noise)
        if not self.one:
            return scored
        chosen = (uniform(noise[self.steps + 1]) * self.steps).long().clamp(max=self.steps - 1)
        steps = torch.arange(-1, self.steps, device=noise.device)
        return scored & (steps[:, None] == chosen)
