"""Mean flows (Geng et al. 2025): the mean velocity over a span, so that one step is enough; ReinFlow's noise on top.

    (r - t) u(x_t, t, r) = integral of v from t to r      =>      u = v + (r - t) du/dt,   du/dt = v . grad_x u + d_t u

with v = data - noise along the straight line, r held, and no gradient through the right side. At r = t it is flow
matching. du/dt is one product with the Jacobian (torch.func.jvp).
"""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from robo_rlft.policies.chains.base import Chunk
from robo_rlft.policies.chains.step_sized import StepSized, between
from robo_rlft.policies.condition import Cond
from robo_rlft.policies.config import ChainConfig
from robo_rlft.policies.precision import computing_in

SMALLEST_ERROR = 1e-3
"""c of the adaptive weight (Geng et al.)."""


class MeanFlow(StepSized):
    """The network is told the span r - t, and learns v where that is 0.

    Its features of the span are slow: their derivative is part of the target, and would swamp it.
    """

    shortest_period = 4.0

    @classmethod
    def prediction(cls, config: ChainConfig) -> str:
        """A mean velocity."""
        del config
        return "a mean velocity over a span"

    def predicted(self, network: nn.Module, cond: Cond, x: Chunk, t: Float[Tensor, " batch"]) -> Chunk:
        """The mean velocity over all that is left: x + (1 - t) u(x, t, 1)."""
        with computing_in(self.config.precision, x.device):
            velocity = self.at(network, cond, x, t, 1 - t)
        return self._bounded(x + (1 - t[:, None, None]) * velocity.to(x.dtype))

    def cloning_error(
        self,
        network: nn.Module,
        cond: Cond,
        data: Chunk,
        noise: Chunk,
        t: Float[Tensor, " batch"],
        u: Float[Tensor, " batch"],
    ) -> Chunk:
        """The first `span_share` of the rows learn the span between t and u, the others r = t.

        A row's squared error D weighs 1 / (D + c)^p: the targets' tails are heavy.
        """
        spans = torch.arange(len(t), device=t.device) < round(self.config.span_share * len(t))
        end = torch.where(spans, torch.maximum(t, u), t)
        t = torch.where(spans, torch.minimum(t, u), t)
        velocity, span = data - noise, end - t

        def mean_velocity(x: Chunk, t: Tensor, span: Tensor) -> Chunk:
            return self.at(network, cond, x, t, span)

        # r stays while t moves: the span shrinks. Fused attention kernels have no forward derivative.
        with sdpa_kernel(SDPBackend.MATH):
            point, direction = (between(noise, data, t), t, span), (velocity, torch.ones_like(t), -torch.ones_like(t))
            mean, slope = cast("tuple[Chunk, Chunk]", jvp(mean_velocity, point, direction))
        error = mean - (velocity + span[:, None, None] * slope).detach()
        size = error.detach().square().mean(dim=(1, 2), keepdim=True)
        return error * (size + SMALLEST_ERROR) ** (-self.config.adaptive_power / 2)
