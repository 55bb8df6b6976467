"""One Gaussian step: the ordinary policy of PPO, as the shortest chain."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from robo_rlft.errors import ConfigError
from robo_rlft.policies.chains.base import Chain, Chunk, Normal
from robo_rlft.policies.condition import Cond
from robo_rlft.policies.config import ChainConfig


class Gaussian(Chain):
    """x_0 = 0, x_1 ~ N(v(0, 0), diag(sigma^2)) with one sigma per entry of the chunk (not of the state)."""

    starts_from_noise = False
    scores_start = False

    def __init__(self, config: ChainConfig, event: tuple[int, int], cond_width: int, feature_width: int = 0) -> None:
        super().__init__(config, event, cond_width, feature_width)
        self.steps = self.window = self.scored_steps = 1
        self.times = [0.0]
        self.log_std = nn.Parameter(torch.full(event, math.log(config.init_std)), requires_grad=config.learn_std)

    def follow_in(self, steps: int) -> None:
        """No flow."""
        raise ConfigError(f"evaluate.steps={steps} needs a flow, this policy's chain is '{self.config.name}'")

    @classmethod
    def prediction(cls, config: ChainConfig) -> str:
        """The network says the mean."""
        del config
        return "the mean of the action"

    def start(self, cond: Cond, like: Chunk) -> Normal:
        """The point 0."""
        del cond
        return Normal(torch.zeros_like(like), torch.zeros_like(like))

    def transition(self, network: nn.Module, cond: Cond, x: Chunk, t: Float[Tensor, " batch"]) -> Normal:
        """The network's output as the mean."""
        mean = self.drift(network, cond, x, t)
        return Normal(mean, self.log_std.exp().expand_as(mean))

    def cloning_error(
        self,
        network: nn.Module,
        cond: Cond,
        data: Chunk,
        noise: Chunk,
        t: Float[Tensor, " batch"],
        u: Float[Tensor, " batch"],
    ) -> Chunk:
        """Least squares: the flow's error from x_0 = 0 at t = 0."""
        return super().cloning_error(network, cond, data, torch.zeros_like(noise), torch.zeros_like(t), u)
