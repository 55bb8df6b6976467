"""Advantage-weighted regression (Peng et al. 2019) on a chain: clone the actions that were executed, good ones more.

    w = min( exp(A / beta), w_max )
    L = E[ w || v(x_t, t, obs) - (a - eps) ||^2 ],   x_t = (1 - t) eps + t a,   eps ~ N(0, I),   t ~ U(0, 1)

a is the chunk that was sampled, before its clamp to the limits, A its advantage, beta the temperature. The error is the
chain's own (`Chain.cloning_error`): of a velocity for flows, of noise for diffusions, of the mean for a Gaussian, where
L is the published weighted log-likelihood. No likelihood of the path is needed, so that a deterministic flow, which
explores by its starting noise alone, will do.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from robo_rlft.learning.bc import sample_time
from robo_rlft.learning.config import PPOConfig
from robo_rlft.learning.mdp import aggregate, executed_steps
from robo_rlft.policies import Policy
from robo_rlft.policies.chains.base import Chunk


@dataclass(frozen=True)
class Draws:
    """What the cloning error of each row is an expectation over, S draws per row.

    Attributes:
        noise: standard normal, [S, row, H, A].
        t: times, one in each of S equal parts of [0, 1].
        u: uniform in [0, 1], for chains that draw a second time.
    """

    noise: Float[Tensor, "draw row chunk action"]
    t: Float[Tensor, "draw row"]
    u: Float[Tensor, "draw row"]

    def __getitem__(self, rows: Tensor | slice) -> Draws:
        return Draws(self.noise[:, rows], self.t[:, rows], self.u[:, rows])


def draw(policy: Policy, rows: int, count: int, generator: torch.Generator) -> Draws:
    """Fresh draws, `count` per row."""
    noise = policy.draw_noise(count * rows, generator)[0].unflatten(0, (count, rows))
    within, u = (sample_time(count * rows, "uniform", generator).to(noise).view(count, rows) for _ in range(2))
    first = torch.arange(count, device=noise.device, dtype=noise.dtype)
    return Draws(noise, (first[:, None] + within) / count, u)


def awr_loss(
    policy: Policy,
    obs: dict[str, Tensor],
    action: Chunk,
    executed: Int[Tensor, " row"],
    advantage: Float[Tensor, " row"],
    draws: Draws,
    config: PPOConfig,
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Mean over the rows of the weighted cloning error of the steps that were executed.

    Args:
        policy: the actor.
        obs: what it saw, with history.
        action: sampled chunks, normalised, the last point of each path. Cloning the clamped actions instead would draw
            the policy inwards, away from the limits, round by round.
        executed: control steps executed of each.
        advantage: normalised advantages.
        draws: noise and times.
        config: temperature, largest weight, aggregation over the entries of a chunk.
    """
    count, cond = len(draws.t), policy.encode(obs)
    error = policy.chain.cloning_error(
        policy.network, cond.repeat(count), action.repeat(count, 1, 1),
        draws.noise.flatten(0, 1), draws.t.flatten(), draws.u.flatten(),
    )  # fmt: skip
    square = error.square().unflatten(0, (count, len(action))).mean(0, keepdim=True)
    mask = executed_steps(executed, action.shape[1])
    per_row = aggregate(square, mask[None, ..., None], config.aggregation)
    weight = weights(advantage, config)
    loss = (weight * per_row).mean()
    capped = (weight >= config.awr_weight_max).to(weight.dtype).mean()
    return loss, {"actor_loss": loss, "awr_weight": weight.mean(), "awr_capped": capped}


def weights(advantage: Float[Tensor, " row"], config: PPOConfig) -> Float[Tensor, " row"]:
    """min(exp(A / beta), w_max)."""
    return (advantage / config.awr_temperature).exp().clamp(max=config.awr_weight_max)
