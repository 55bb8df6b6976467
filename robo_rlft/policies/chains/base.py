"""The chain: a random path from noise to a chunk of actions, with the exact likelihood of that path.

Time runs from t = 0 (noise) to t = 1 (data) on ONE grid, t_k = k / K, for sampling and for likelihoods alike. A chain
says only what one transition x_k -> x_{k+1} is; the loop and the folded likelihood stand here, once.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from robo_rlft.errors import ConfigError, unknown_name
from robo_rlft.policies.condition import Cond
from robo_rlft.policies.config import PRECISIONS, ChainConfig
from robo_rlft.policies.precision import computing_in

Chunk = Float[Tensor, "batch chunk action"]
LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True)
class Normal:
    """A transition: independent normals, [B, H, A] each. A deterministic one has std = 0 and no density."""

    mean: Chunk
    std: Chunk

    @cached_property
    def log_std(self) -> Chunk:
        """Logarithm of the standard deviation, computed once for density and entropy."""
        return self.std.log()

    def log_prob(self, x: Chunk) -> Chunk:
        """Log-density of every entry."""
        return -0.5 * ((x - self.mean) / self.std) ** 2 - self.log_std - LOG_SQRT_2PI

    def entropy(self) -> Chunk:
        """Entropy of every entry."""
        return 0.5 + LOG_SQRT_2PI + self.log_std

    def kl(self, other: Normal) -> Chunk:
        """KL(self || other) of every entry."""
        ratio = self.std / other.std
        return 0.5 * (ratio**2 + ((self.mean - other.mean) / other.std) ** 2 - 1) - ratio.log()


@dataclass(frozen=True)
class Path:
    """One sampled path per row.

    Attributes:
        latents: the points that were sampled and are scored, x_0 .. x_K, [K + 1, N, H, A].
        scored: whether point k was drawn from a density, [K + 1, N].
        action: x_K within [-1, 1], in normalised action units, [N, H, A].
    """

    latents: Float[Tensor, "point env chunk action"]
    scored: Bool[Tensor, "point env"]
    action: Chunk

    def __getitem__(self, rows: Tensor | slice) -> Path:
        """Some rows of the path."""
        return Path(self.latents[:, rows], self.scored[:, rows], self.action[rows])


@dataclass(frozen=True)
class PathScore:
    """The likelihood of a path under the present parameters.

    Attributes:
        log_prob: unreduced; row 0 is that of the starting noise; 0 where nothing was scored, [K + 1, N, H, A].
        entropy: entropy of each transition, same layout; 0 where nothing was scored.
    """

    log_prob: Float[Tensor, "point env chunk action"]
    entropy: Float[Tensor, "point env chunk action"]


class Chain(nn.Module, ABC):
    """Base of all chains. A subclass gives `transition`, and may change where the path starts.

    Attributes:
        steps: K.
        has_likelihood: transitions have densities.
        starts_from_noise: x_0 ~ N(0, I) and is scored; else x_0 = 0 and is not.
    """

    has_likelihood = True
    starts_from_noise = True

    def __init__(self, config: ChainConfig, event: tuple[int, int], cond_width: int) -> None:
        super().__init__()
        del cond_width
        if config.steps < 1:
            raise ConfigError(f"policy.chain.steps is {config.steps}: at least 1")
        if config.precision not in PRECISIONS:
            raise ConfigError(unknown_name("policy.chain.precision", config.precision, PRECISIONS))
        self.config = config
        self.event = event
        self.steps = config.steps

    @abstractmethod
    def transition(self, network: nn.Module, cond: Cond, x: Chunk, t: Float[Tensor, " batch"]) -> Normal:
        """Distribution of the next point given the present one, x at time t, row by row."""

    def drift(self, network: nn.Module, cond: Cond, x: Chunk, t: Float[Tensor, " batch"]) -> Chunk:
        """The flow's Euler step, x + v(x, t) / K, bounded by `latent_clip`."""
        mean = x + self._velocity(network, cond, x, t) / self.steps
        clip = self.config.latent_clip
        return mean.clamp(-clip, clip) if clip > 0 else mean

    def sample(
        self,
        network: nn.Module,
        cond: Cond,
        noise: Float[Tensor, "point env chunk action"],
        deterministic: bool = False,
    ) -> Path:
        """Draw one path per row.

        Args:
            network: the velocity.
            cond: N rows.
            noise: standard normal; point 0 starts the path, points 1..K drive its transitions. Point 0 alone suffices
                when `deterministic`.
            deterministic: follow the means; the path then has no likelihood.
        """
        x = noise[0] if self.starts_from_noise else torch.zeros_like(noise[0])
        random = self.has_likelihood and not deterministic
        latents = [x]
        for k in range(self.steps):
            step = self.transition(network, cond, x, self._time(x, k))
            x = step.mean + step.std * self._cut(noise[k + 1]) if random else step.mean
            latents.append(x)
        # x.shape[0] and not len(x): the exporter keeps the former dynamic.
        scored = torch.full((self.steps + 1, x.shape[0]), random, dtype=torch.bool, device=x.device)
        scored[0] = random and self.starts_from_noise
        return Path(torch.stack(latents), scored, x.clamp(-1, 1))

    def score(self, network: nn.Module, cond: Cond, path: Path, fold_rows: int = 0) -> PathScore:
        """Likelihood of every point of a path, in the precision of the parameters.

        The K transitions are evaluated as one batch of K * N rows, or in pieces of about `fold_rows`: large batches
        fall out of the processor's cache.

        Raises:
            ConfigError: the chain or the path is deterministic.
        """
        if not self.has_likelihood:
            raise ConfigError(
                f"chain '{self.config.name}' is deterministic and has no likelihood: fine-tune with 'reinflow'"
            )
        if not bool(path.scored[-1].all()):
            raise ConfigError("this path was sampled deterministically: it has no likelihood")
        start = path.latents[0]
        if self.starts_from_noise:
            log_probs, entropies = [-0.5 * start[None] ** 2 - LOG_SQRT_2PI], [torch.zeros_like(start)[None]]
        else:
            log_probs, entropies = [torch.zeros_like(start)[None]], [torch.zeros_like(start)[None]]
        rows = len(start)
        group = min(self.steps, max(1, fold_rows // rows)) if fold_rows > 0 else self.steps
        for first in range(0, self.steps, group):
            last = min(first + group, self.steps)
            t = torch.arange(first, last, device=start.device, dtype=start.dtype).repeat_interleave(rows) / self.steps
            step = self.transition(network, cond.repeat(last - first), path.latents[first:last].flatten(0, 1), t)
            shape = (last - first, *start.shape)
            log_probs.append(step.log_prob(path.latents[first + 1 : last + 1].flatten(0, 1)).view(shape))
            entropies.append(step.entropy().expand(-1, *self.event).view(shape))
        return PathScore(torch.cat(log_probs), torch.cat(entropies))

    def set_progress(self, fraction: float, hold: float, final: float) -> None:
        """Tell the chain how far the fine-tuning is (0..1), for schedules of its noise. Most chains have none.

        Args:
            fraction: share of the iterations done.
            hold: share during which nothing changes.
            final: where the schedule ends, 1 for no schedule.
        """

    def _velocity(self, network: nn.Module, cond: Cond, x: Chunk, t: Float[Tensor, " batch"]) -> Chunk:
        """The one place that calls the network, so that a rollout and its update never differ in precision."""
        with computing_in(self.config.precision, x.device):
            velocity = network(x, t, cond)
        return velocity.to(x.dtype)

    def _time(self, x: Chunk, k: int) -> Float[Tensor, " batch"]:
        return torch.full((x.shape[0],), k / self.steps, device=x.device, dtype=x.dtype)

    def _cut(self, noise: Chunk) -> Chunk:
        bound = self.config.noise_clip
        return noise.clamp(-bound, bound) if bound > 0 else noise
