"""The two ways to see a denoising chain as actions, as one set of shapes for PPO.

    chain   one action per chunk, the whole path:         log pi = sum or mean over points, H and A        [row]
    steps   one action per scored denoising step:         log pi_k = the same over H and A                 [row, point]

With `steps` (DPPO, Ren et al. 2024, section 4; also Flow-SDE in piRL) the advantage of a chunk is that of each of its
steps, discounted towards the noise, and the clip range grows along the chain:

    A_i   = gamma_denoise^(n - 1 - i) A
    eps_i = b + (c - b) (e^(3 tau) - 1) / (e^3 - 1),   tau = i / (n - 1),   i = 0 .. n - 1 the trained steps
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from robo_rlft.errors import ConfigError
from robo_rlft.learning.config import PPOConfig
from robo_rlft.policies.chains import Path

AGGREGATIONS = ("mean", "sum")
Entries = Float[Tensor, "point row chunk action"]
Valid = Bool[Tensor, "point row chunk 1"]


class MDP(Protocol):
    """What PPO needs to know about its actions. Every tensor it gives has the shape of the log-probabilities."""

    def log_prob(self, entries: Entries, mask: Valid) -> Float[Tensor, "row *point"]:
        """Aggregated log-probability of every action."""
        ...

    def advantage(self, advantage: Float[Tensor, " row"]) -> Float[Tensor, "row *point"]:
        """Advantage of every action, or one that broadcasts."""
        ...

    def clip(self, like: Tensor) -> Float[Tensor, "*point"]:
        """Epsilon of every action, or one that broadcasts."""
        ...

    def mean(self, x: Float[Tensor, "row *point"], path: Path) -> Float[Tensor, ""]:
        """Mean over the actions that were taken."""
        ...


@dataclass(frozen=True)
class JointChain:
    """The path is the action."""

    config: PPOConfig

    def log_prob(self, entries: Entries, mask: Valid) -> Float[Tensor, " row"]:
        """Over all points of a row."""
        return aggregate(bounded(entries, self.config.entry_bounds), mask, self.config.aggregation)

    def advantage(self, advantage: Float[Tensor, " row"]) -> Float[Tensor, " row"]:
        """As it is."""
        return advantage

    def clip(self, like: Tensor) -> Float[Tensor, ""]:
        """One epsilon."""
        return like.new_tensor(self.config.clip)

    def mean(self, x: Float[Tensor, " row"], path: Path) -> Float[Tensor, ""]:
        """Over the rows."""
        del path
        return x.mean()


@dataclass(frozen=True)
class DenoisingSteps:
    """Every scored step is an action; the starting noise is none, unless it is all there is to learn.

    Attributes:
        config: epsilons, discount, aggregation.
        window: n, the steps that may be scored.
        learned: the points of a path that they end in (`Chain.learned`); None for the last n.
    """

    config: PPOConfig
    window: int
    learned: slice | None = None

    @property
    def points(self) -> slice:
        """Where the actions stand in a path."""
        return self.learned or slice(-self.window, None)

    def log_prob(self, entries: Entries, mask: Valid) -> Float[Tensor, "row point"]:
        """Of each point that is an action, on its own."""
        entries, mask = bounded(entries, self.config.entry_bounds)[self.points], mask[self.points]
        return torch.stack(
            [aggregate(x[None], m[None], self.config.aggregation) for x, m in zip(entries, mask, strict=True)], dim=1
        )

    def advantage(self, advantage: Float[Tensor, " row"]) -> Float[Tensor, "row point"]:
        """Discounted towards the noise."""
        discount = [self.config.denoise_gamma ** (self.window - 1 - i) for i in range(self.window)]
        return advantage[:, None] * advantage.new_tensor(discount)

    def clip(self, like: Tensor) -> Float[Tensor, " point"]:
        """Growing from `clip_first` to `clip`."""
        return like.new_tensor(clip_schedule(self.config.clip_first or self.config.clip, self.config.clip, self.window))

    def mean(self, x: Float[Tensor, "row point"], path: Path) -> Float[Tensor, ""]:
        """Over the scored steps of each row, then over the rows."""
        taken = path.scored[self.points].T
        return (torch.where(taken, x, 0.0).sum(1) / taken.sum(1)).mean()


def mdp_of(config: PPOConfig, window: int, learned: slice | None = None) -> MDP:
    """The view that `ppo.mdp` names.

    Args:
        config: settings.
        window: steps of the chain that may be scored.
        learned: the points they end in; None for the last ones.

    Raises:
        ConfigError: an unknown view.
    """
    if config.mdp not in ("chain", "steps"):
        raise ConfigError(f"ppo.mdp '{config.mdp}' is unknown: choose one of chain, steps")
    return JointChain(config) if config.mdp == "chain" else DenoisingSteps(config, window, learned)


def clip_schedule(first: float, last: float, count: int) -> list[float]:
    """DPPO's clip range per trained step. A single step is the last one: tau = 0 / 0 counts as 1."""
    shares = [math.expm1(3 * i / (count - 1)) / math.expm1(3) for i in range(count)] if count > 1 else [1.0]
    return [first * (1 - share) + last * share for share in shares]


def bounded(entries: Entries, bounds: list[float]) -> Entries:
    """Each entry's log-probability within [low, high], if bounds are given."""
    return entries.clamp(*bounds) if bounds else entries


def event_mask(path: Path, executed: Int[Tensor, " row"]) -> Valid:
    """Which entries of a path count.

    An action that was not executed had no effect, but its EARLIER latents did: the network reads the whole chunk. So
    only the last point's tail is left out.
    """
    points, rows, chunk, _ = path.latents.shape
    mask = path.scored[:, :, None, None].expand(points, rows, chunk, 1).clone()
    mask[-1] &= executed_steps(executed, chunk).unsqueeze(-1)
    return mask


def executed_steps(executed: Int[Tensor, " row"], chunk: int) -> Bool[Tensor, "row chunk"]:
    """Which actions of each chunk were executed."""
    return torch.arange(chunk, device=executed.device) < executed[:, None]


def aggregate(x: Entries, mask: Valid, how: str) -> Float[Tensor, " row"]:
    """Reduce per-entry log-probabilities to one number per row: `sum`, or `mean` over the entries that count.

    Raises:
        ConfigError: an unknown aggregation.
    """
    if how not in AGGREGATIONS:
        raise ConfigError(f"ppo.aggregation '{how}' is unknown: choose one of {', '.join(AGGREGATIONS)}")
    valid = mask.squeeze(-1)
    total = torch.where(valid, x.sum(-1), 0.0).sum(dim=(0, 2))
    return total if how == "sum" else total / (valid.sum(dim=(0, 2)) * x.shape[-1]).clamp(min=1)
