"""Flow-Noise (piRL, Chen et al. 2025): Euler steps plus noise that a head on the network's own features decides.

    x_{k+1} ~ N( clip(x_k + v(x_k, t_k) / K),  sigma_phi(features(x_k, t_k, obs))^2 ),   sigma within its bounds

The likelihood is that of the joint chain over all K steps. A network that exposes no features gives ReinFlow's input to
the head, time and condition.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from robo_rlft.policies.chains.base import Chunk, Normal
from robo_rlft.policies.chains.reinflow import ReinFlow
from robo_rlft.policies.condition import Cond
from robo_rlft.policies.precision import computing_in


@runtime_checkable
class HasFeatures(Protocol):
    """A network that tells what it saw.

    Attributes:
        feature_width: width of its features.
    """

    feature_width: int

    def velocity_and_features(
        self, x: Chunk, t: Float[Tensor, " batch"], cond: Cond
    ) -> tuple[Chunk, Float[Tensor, "batch feature"]]:
        """The velocity and the features it was made of, in one pass."""
        ...


class FlowNoise(ReinFlow):
    """ReinFlow whose noise sees the noisy chunk through the velocity's features.

    Its gradient reaches them: stopped there, it would not be that of the likelihood.
    """

    def transition(self, network: nn.Module, cond: Cond, x: Chunk, t: Float[Tensor, " batch"]) -> Normal:
        """The Euler step with the standard deviation of the head."""
        if not (self.reads_features and isinstance(network, HasFeatures)):
            return super().transition(network, cond, x, t)
        with computing_in(self.config.precision, x.device):
            velocity, features = network.velocity_and_features(x, t, self.told(cond))
        mean = self._bounded(x + velocity.to(x.dtype) / self.steps)
        return Normal(mean, self.std_from(features.to(x.dtype)))

    @classmethod
    def noise_inputs(cls, cond_width: int, feature_width: int) -> int:
        """The network's features where it has some."""
        return feature_width or super().noise_inputs(cond_width, 0)
