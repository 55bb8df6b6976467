"""Shortcut models (Frans et al. 2024): a flow that is good at 1, 2, 4 ... steps, fine-tuned with ReinFlow's noise.

    s(x_t, t, 0)  = data - noise                                                     flow matching
    s(x_t, t, 2d) = ( s(x_t, t, d) + s(x_t + d s(x_t, t, d), t + d, d) ) / 2         self-consistency, no gradient

Two steps of d are one of 2d, for d = 1/M, 2/M .. 1/2 and t a multiple of 2d. The smallest d is the flow itself, d = 0.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from robo_rlft.errors import ConfigError
from robo_rlft.policies.chains.base import Chunk
from robo_rlft.policies.chains.step_sized import StepSized, between
from robo_rlft.policies.condition import Cond
from robo_rlft.policies.config import ChainConfig


class Shortcut(StepSized):
    """A velocity for spans of powers of two. The targets of self-consistency come from the present weights."""

    def __init__(self, config: ChainConfig, event: tuple[int, int], cond_width: int, feature_width: int = 0) -> None:
        super().__init__(config, event, cond_width, feature_width)
        self.doublings = config.finest.bit_length() - 1
        if config.finest < 2 or config.finest != 2**self.doublings:
            raise ConfigError(f"policy.chain.finest={config.finest} is no power of two from 2 on")

    @classmethod
    def prediction(cls, config: ChainConfig) -> str:
        """A velocity for steps of several sizes."""
        del config
        return "a velocity for a step size"

    def cloning_error(
        self,
        network: nn.Module,
        cond: Cond,
        data: Chunk,
        noise: Chunk,
        t: Float[Tensor, " batch"],
        u: Float[Tensor, " batch"],
    ) -> Chunk:
        """Flow matching, and self-consistency in the first `span_share` of the rows; u draws the step there."""
        first = round(self.config.span_share * len(data))
        double = torch.pow(2.0, -(u[:first] * self.doublings).floor().clamp(max=self.doublings - 1)).to(t.dtype)
        start = (t[:first] / double).floor() * double
        t = torch.cat([start.clamp(max=1 - double), t[first:]])
        x = between(noise, data, t)
        span = torch.cat([double, torch.zeros_like(t[first:])])
        twice = self._two_steps(network, cond[:first], x[:first], t[:first], double / 2)
        return self.at(network, cond, x, t, span) - torch.cat([twice, (data - noise)[first:]])

    @torch.no_grad()
    def _two_steps(
        self, network: nn.Module, cond: Cond, x: Chunk, t: Float[Tensor, " batch"], d: Float[Tensor, " batch"]
    ) -> Chunk:
        """The mean velocity of two steps of d."""
        told = torch.where(d > 1 / self.config.finest, d, 0.0)
        one = self.at(network, cond, x, t, told)
        return (one + self.at(network, cond, x + d[:, None, None] * one, t + d, told)) / 2
