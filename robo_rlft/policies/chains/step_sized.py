"""What shortcut models and mean flows share: a velocity that knows how far it will be followed."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from robo_rlft.policies.chains.base import Chunk
from robo_rlft.policies.chains.reinflow import ReinFlow
from robo_rlft.policies.condition import Cond
from robo_rlft.policies.networks.layers import sinusoid

SPAN_FEATURES = 16


class StepSized(ReinFlow):
    """Euler steps of 1 / K with a velocity that is told so; fine-tuned with ReinFlow's noise.

    The span reaches the network as features beside the condition, so that every network can serve.

    Attributes:
        shortest_period: of the features' sines.
    """

    extra_width = SPAN_FEATURES
    shortest_period = 0.1

    def told(self, cond: Cond) -> Cond:
        """The condition and the span of this chain's steps."""
        return self.spanning(cond, torch.full_like(cond.vector[:, 0], 1 / self.steps))

    @classmethod
    def spanning(cls, cond: Cond, span: Float[Tensor, " batch"]) -> Cond:
        """The condition and a span for each row."""
        return Cond(torch.cat([cond.vector, sinusoid(span, SPAN_FEATURES, cls.shortest_period)], dim=-1))

    def at(
        self, network: nn.Module, cond: Cond, x: Chunk, t: Float[Tensor, " batch"], span: Float[Tensor, " batch"]
    ) -> Chunk:
        """The velocity at (x, t) for a span."""
        return network(x, t, self.spanning(cond, span))


def between(noise: Chunk, data: Chunk, t: Float[Tensor, " batch"]) -> Chunk:
    """The point at time t on the straight line."""
    w = t[:, None, None]
    return (1 - w) * noise + w * data
