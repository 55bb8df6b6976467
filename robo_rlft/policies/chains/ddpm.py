"""DDPM (Ho et al. 2020) with the floors of DPPO (Ren et al. 2024): every denoising step is a Gaussian.

    x0    = clip((x - sqrt(1 - abar) eps(x, t)) / sqrt(abar))                          the predicted action
    mean  = sqrt(abar') beta / (1 - abar) x0 + sqrt(alpha) (1 - abar') / (1 - abar) x    with alpha = abar / abar'
    std   = max( sqrt(beta (1 - abar') / (1 - abar)), floor )                            and beta = 1 - alpha

abar' is that of the next, cleaner level.
"""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor, nn

from robo_rlft.errors import ConfigError
from robo_rlft.policies.chains.base import Chunk, Normal
from robo_rlft.policies.chains.diffusion import Diffusion, levels
from robo_rlft.policies.condition import Cond
from robo_rlft.policies.config import ChainConfig


class DDPM(Diffusion):
    """The posterior of every level in turn. Deterministically it follows the posterior's means."""

    def __init__(self, config: ChainConfig, event: tuple[int, int], cond_width: int, feature_width: int = 0) -> None:
        super().__init__(config, event, cond_width, feature_width)
        if levels(config) != config.steps:
            raise ConfigError(
                f"policy.chain.name=ddpm takes every noise level: policy.chain.steps={config.steps} but "
                f"policy.chain.levels={config.levels}; choose ddim for fewer steps"
            )

    def transition(self, network: nn.Module, cond: Cond, x: Chunk, t: Float[Tensor, " batch"]) -> Normal:
        """The posterior, its std at least `score_std_min`."""
        return self._floored(self._posterior(network, cond, x, t), self.config.score_std_min)

    def move(
        self, network: nn.Module, cond: Cond, x: Chunk, t: Float[Tensor, " batch"], random: Bool[Tensor, " batch"]
    ) -> Normal:
        """The posterior, its std at least `sample_std_min`."""
        step = self._floored(self._posterior(network, cond, x, t), self.config.sample_std_min)
        return Normal(step.mean, step.std * random[:, None, None])

    def _posterior(self, network: nn.Module, cond: Cond, x: Chunk, t: Float[Tensor, " batch"]) -> Normal:
        action, kept, after = self._predict(network, cond, x, t)
        alpha = kept / after
        mean = (after.sqrt() * (1 - alpha) * action + alpha.sqrt() * (1 - after) * x) / (1 - kept)
        return Normal(mean, ((1 - alpha) * (1 - after) / (1 - kept)).sqrt())
