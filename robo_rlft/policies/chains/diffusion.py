"""What DDPM and DDIM share: noise levels, the network as a predictor of noise, the predicted action.

    x = sqrt(abar_i) data + sqrt(1 - abar_i) eps,   i = 0 (almost clean) .. T - 1 (almost noise)

Time runs as in every chain from t = 0 (noise) to t = 1 (data): level i stands at t = (T - 1 - i) / T.
"""

from __future__ import annotations

import math
from abc import ABC

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from robo_rlft.errors import ConfigError
from robo_rlft.policies.chains.base import Chain, Chunk, Normal
from robo_rlft.policies.condition import Cond
from robo_rlft.policies.config import ChainConfig


class Diffusion(Chain, ABC):
    """A chain over noise levels. Only its last K_ft steps (`trained_steps`) are scored and trained.

    The steps before them are random but count as part of the environment, x_0 with them. They are sampled with the
    PRESENT network, where DPPO keeps a frozen copy for them: one network then stands in checkpoint and controller, and
    the ratio of the scored steps is exact either way, since it is conditioned on the stored point they start from. The
    price is that training moves the early steps without a gradient or a clip of their own; `trained_steps` = 0 trains
    all of them.
    """

    scores_start = False

    def __init__(self, config: ChainConfig, event: tuple[int, int], cond_width: int, feature_width: int = 0) -> None:
        super().__init__(config, event, cond_width, feature_width)
        self.levels = levels(config)
        if not 0 <= config.trained_steps <= config.steps:
            raise ConfigError(
                f"policy.chain.trained_steps={config.trained_steps} exceeds policy.chain.steps={config.steps}"
            )
        if self.levels % config.steps:
            raise ConfigError(
                f"policy.chain.steps={config.steps} does not divide the {self.levels} noise levels "
                "(policy.chain.levels) evenly"
            )
        self.window = self.scored_steps = config.trained_steps or config.steps
        self.stride = self.levels // config.steps
        self.kept = cosine_schedule(self.levels)
        self.times = [(self.levels - 1 - k * self.stride) / self.levels for k in reversed(range(self.steps))]

    def follow_in(self, steps: int) -> None:
        """No flow."""
        raise ConfigError(f"evaluate.steps={steps} needs a flow, this policy's chain is '{self.config.name}'")

    @classmethod
    def prediction(cls, config: ChainConfig) -> str:
        """Noise, of a number of levels."""
        return f"the noise of {levels(config)} levels"

    def cloning_error(
        self,
        network: nn.Module,
        cond: Cond,
        data: Chunk,
        noise: Chunk,
        t: Float[Tensor, " batch"],
        u: Float[Tensor, " batch"],
    ) -> Chunk:
        """Noise prediction (Ho et al. 2020, equation 14): eps(x_i, i) - eps at the level of time t."""
        del u
        level = self.levels - 1 - (t * self.levels).long().clamp(max=self.levels - 1)
        kept = _at(self.kept, level, noise)
        x = kept.sqrt() * data + (1 - kept).sqrt() * noise
        return network(x, (self.levels - 1 - level).to(t.dtype) / self.levels, cond) - noise

    def predicted(self, network: nn.Module, cond: Cond, x: Chunk, t: Float[Tensor, " batch"]) -> Chunk:
        """The predicted action of the present level."""
        return self._predict(network, cond, x, t)[0]

    def _random_steps(self, scored: Bool[Tensor, "point env"]) -> Bool[Tensor, "step env"]:
        """All: the steps before the trained ones are random as well."""
        return torch.ones_like(scored[1:])

    def _predict(
        self, network: nn.Module, cond: Cond, x: Chunk, t: Float[Tensor, " batch"]
    ) -> tuple[Chunk, Float[Tensor, "batch 1 1"], Float[Tensor, "batch 1 1"]]:
        """The predicted action within its bound, and abar before and after the step."""
        level = (self.levels - 1 - t * self.levels).round().long()
        kept = _at(self.kept, level, x)
        after = _at([1.0, *self.kept], (level - self.stride + 1).clamp(min=0), x)
        noise = self._velocity(network, cond, x, t)
        return self._bounded((x - (1 - kept).sqrt() * noise) / kept.sqrt()), kept, after

    def _floored(self, step: Normal, floor: float) -> Normal:
        return Normal(step.mean, step.std.clamp(min=floor).expand_as(step.mean))


def levels(config: ChainConfig) -> int:
    """T, the noise levels the network knows."""
    return config.levels or config.steps


def cosine_schedule(count: int, shift: float = 0.008, largest: float = 0.999) -> list[float]:
    """abar_0 .. abar_{T-1} of Nichol & Dhariwal 2021, equation 17, with each beta at most `largest`."""

    def signal(share: float) -> float:
        return math.cos((share + shift) / (1 + shift) * math.pi / 2) ** 2

    kept, product = [], 1.0
    for i in range(count):
        product *= 1 - min(1 - signal((i + 1) / count) / signal(i / count), largest)
        kept.append(product)
    return kept


def _at(table: list[float], index: Int[Tensor, " batch"], like: Tensor) -> Float[Tensor, "batch 1 1"]:
    """Entries of a table in the precision of `like`."""
    return like.new_tensor(table)[index][:, None, None]
