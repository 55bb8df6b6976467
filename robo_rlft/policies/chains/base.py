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
VELOCITY = "a velocity"
"""What the network of an ordinary flow predicts."""
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
        entropy: entropy of each transition, and of a learned start, same layout; 0 where nothing was scored.
    """

    log_prob: Float[Tensor, "point env chunk action"]
    entropy: Float[Tensor, "point env chunk action"]


class Chain(nn.Module, ABC):
    """Base of all chains. A subclass gives `transition`; it may change where a path starts and which steps are random.

    Args:
        config: settings of every chain.
        event: (chunk length H, action width A).
        cond_width: width of the condition.
        feature_width: width of the features the network exposes; 0 if it exposes none.

    Attributes:
        steps: K.
        times: t_0 .. t_{K-1}, when the network is asked. ONE grid for sampling and likelihood.
        has_likelihood: transitions have densities.
        stochastic: the steps of a path that explores are random, not its start alone.
        starts_from_noise: x_0 is drawn from `start` whether the chain explores or not; else, without exploration, it is
            the start's mean.
        scores_start: the density of x_0 is part of the path's.
        learns_start: x_0 is what is learned: the policy's action, with an entropy to reward.
        freezes_network: fine-tuning leaves the network as it is.
        window: the last so many steps may be scored.
        scored_steps: transitions that are scored in each path: the network's work in an update.
        extra_noise: rows of noise a path takes beyond x_0 and one per step.
        extra_width: what the chain tells its network beside the condition.
    """

    has_likelihood = True
    stochastic = True
    starts_from_noise = True
    scores_start = True
    learns_start = False
    freezes_network = False
    extra_noise = 0
    extra_width = 0

    def __init__(self, config: ChainConfig, event: tuple[int, int], cond_width: int, feature_width: int = 0) -> None:
        super().__init__()
        del cond_width, feature_width
        if config.steps < 1:
            raise ConfigError(f"policy.chain.steps is {config.steps}: at least 1")
        if config.precision not in PRECISIONS:
            raise ConfigError(unknown_name("policy.chain.precision", config.precision, PRECISIONS))
        self.config = config
        self.event = event
        self.steps = self.window = self.scored_steps = config.steps
        self.times = [k / self.steps for k in range(self.steps)]

    def follow_in(self, steps: int) -> None:
        """Follow the same flow deterministically in another number of steps.

        Raises:
            ConfigError: the chain is no flow.
        """
        self.steps, self.times = steps, [k / steps for k in range(steps)]

    @classmethod
    def prediction(cls, config: ChainConfig) -> str:
        """What the network is trained to say. Chains of one prediction share checkpoints."""
        del config
        return VELOCITY

    @property
    def learned(self) -> slice:
        """Points of a path that are drawn from what is learned: those of the last `window` steps, or x_0."""
        return slice(0, 1) if self.learns_start else slice(-self.window, None)

    def start(self, cond: Cond, like: Chunk) -> Normal:
        """Distribution of x_0, in the shape of `like`: N(0, I). With std 0 it is a point without a density."""
        del cond
        return Normal(torch.zeros_like(like), torch.ones_like(like))

    @abstractmethod
    def transition(self, network: nn.Module, cond: Cond, x: Chunk, t: Float[Tensor, " batch"]) -> Normal:
        """Distribution of the next point given the present one, x at time t, row by row. It is what is scored."""

    def move(
        self, network: nn.Module, cond: Cond, x: Chunk, t: Float[Tensor, " batch"], random: Bool[Tensor, " batch"]
    ) -> Normal:
        """What is sampled: the transition in `random` rows, in the others the deterministic sampler (std 0)."""
        step = self.transition(network, cond, x, t)
        return Normal(step.mean, step.std * random[:, None, None])

    def cloning_error(
        self,
        network: nn.Module,
        cond: Cond,
        data: Chunk,
        noise: Chunk,
        t: Float[Tensor, " batch"],
        u: Float[Tensor, " batch"],
    ) -> Chunk:
        """What behaviour cloning squares: of a flow, v(x_t, t) - (data - noise) at x_t = (1 - t) noise + t data.

        Args:
            network: the network.
            cond: conditions.
            data: an expert's chunks, normalised.
            noise: standard normal.
            t: times.
            u: uniform in [0, 1], for chains that draw something besides.
        """
        del u
        w = t[:, None, None]
        return network((1 - w) * noise + w * data, t, self.told(cond)) - (data - noise)

    def told(self, cond: Cond) -> Cond:
        """The condition with what the chain adds to it, `extra_width` features."""
        return cond

    def drift(self, network: nn.Module, cond: Cond, x: Chunk, t: Float[Tensor, " batch"]) -> Chunk:
        """The flow's Euler step, x + v(x, t) / K, bounded by `latent_clip`."""
        return self._bounded(x + self._velocity(network, cond, x, t) / self.steps)

    def predicted(self, network: nn.Module, cond: Cond, x: Chunk, t: Float[Tensor, " batch"]) -> Chunk:
        """The action a path at x is expected to end in: x + (1 - t) v(x, t), bounded by `latent_clip`."""
        return self._bounded(x + (1 - t[:, None, None]) * self._velocity(network, cond, x, t))

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
            noise: standard normal; point 0 starts the path, points 1..K drive its transitions, `extra_noise` more
                decide what else is random. Point 0 alone suffices when `deterministic`.
            deterministic: follow the deterministic sampler; the path then has no likelihood.
        """
        exploring = self.has_likelihood and not deterministic
        start = self.start(cond, noise[0])
        x = start.mean + start.std * noise[0] if exploring or self.starts_from_noise else start.mean
        # x.shape[0] and not len(x): the exporter keeps the former dynamic.
        nowhere = torch.zeros((self.steps + 1, x.shape[0]), dtype=torch.bool, device=x.device)
        scored = self._scored_points(noise) if exploring else nowhere
        random = self._random_steps(scored) if exploring else nowhere[1:]
        latents = [x]
        for k in range(self.steps):
            step = self.move(network, cond, x, torch.full_like(x[:, 0, 0], self.times[k]), random[k])
            x = step.mean + step.std * self.cut(noise[k + 1]) if exploring else step.mean
            latents.append(x)
        return Path(torch.stack(latents), scored, x.clamp(-1, 1))

    def score(self, network: nn.Module, cond: Cond, path: Path, fold_rows: int = 0) -> PathScore:
        """Likelihood of every scored point of a path, in the precision of the parameters.

        The scored transitions are evaluated as one batch, or in pieces of about `fold_rows`: large batches fall out of
        the processor's cache.

        Raises:
            ConfigError: the chain or the path is deterministic.
        """
        self.check_scored(path)
        latents, log_prob = path.latents, torch.zeros_like(path.latents)
        entropy = torch.zeros_like(log_prob)
        if self.scores_start:
            start = self.start(cond, latents[0])
            log_prob[0] = start.log_prob(latents[0])
            entropy[0] = start.entropy() if self.learns_start else 0.0
        points, rows = path.scored[1:].nonzero(as_tuple=True)
        times = latents.new_tensor(self.times)
        for piece in _pieces(len(rows), latents.shape[1], fold_rows):
            k, n = points[piece], rows[piece]
            step = self.transition(network, cond[n], latents[k, n], times[k])
            log_prob[k + 1, n] = step.log_prob(latents[k + 1, n])
            entropy[k + 1, n] = step.entropy()
        return PathScore(log_prob, entropy)

    def check_scored(self, path: Path) -> None:
        """Raise `ConfigError` unless this chain drew every row of the path from a density."""
        if not self.has_likelihood:
            raise ConfigError(
                f"chain '{self.config.name}' is deterministic and has no likelihood: fine-tune with 'reinflow'"
            )
        if not bool(path.scored.any(0).all()):
            raise ConfigError("this path was sampled deterministically: it has no likelihood")

    def cut(self, noise: Chunk) -> Chunk:
        """Noise of a transition within `noise_clip`."""
        bound = self.config.noise_clip
        return noise.clamp(-bound, bound) if bound > 0 else noise

    def set_progress(self, fraction: float, hold: float, final: float) -> None:
        """Tell the chain how far the fine-tuning is (0..1), for schedules of its noise. Most chains have none.

        Args:
            fraction: share of the iterations done.
            hold: share during which nothing changes.
            final: where the schedule ends, 1 for no schedule.
        """

    def _scored_points(self, noise: Float[Tensor, "point env chunk action"]) -> Bool[Tensor, "point env"]:
        """Which points of a path that explores are scored: the last `window`, and x_0 where it counts."""
        scored = torch.ones(self.steps + 1, noise.shape[1], dtype=torch.bool, device=noise.device)
        scored[: self.steps + 1 - self.window] = False
        scored[0] = self.scores_start
        return scored

    def _random_steps(self, scored: Bool[Tensor, "point env"]) -> Bool[Tensor, "step env"]:
        """Which steps are random; those that are scored, unless a chain says otherwise."""
        return scored[1:]

    def _velocity(self, network: nn.Module, cond: Cond, x: Chunk, t: Float[Tensor, " batch"]) -> Chunk:
        """The network's answer, so computed that a rollout and its update never differ in precision."""
        with computing_in(self.config.precision, x.device):
            velocity = network(x, t, self.told(cond))
        return velocity.to(x.dtype)

    def _bounded(self, mean: Chunk) -> Chunk:
        clip = self.config.latent_clip
        return mean.clamp(-clip, clip) if clip > 0 else mean


def uniform(noise: Float[Tensor, "env chunk action"]) -> Float[Tensor, " env"]:
    """A number in [0, 1] per row out of standard normal noise: all randomness of a path comes with its noise."""
    return torch.special.ndtr(noise[:, 0, 0])


def _pieces(total: int, rows: int, fold_rows: int) -> list[slice]:
    """Whole steps of a path (`rows` each) at a time, about `fold_rows` together."""
    size = rows * max(1, fold_rows // rows) if fold_rows > 0 else max(total, 1)
    return [slice(first, min(first + size, total)) for first in range(0, total, size)]
