"""Behaviour cloning of chains: conditional flow matching (Lipman et al. 2023), or least squares for a Gaussian.

    x_t = (1 - t) x_0 + t x_1,   x_0 ~ N(0, I),  x_1 an expert's chunk,   loss = E || v(x_t, t, obs) - (x_1 - x_0) ||^2

Time runs from noise (t = 0) to data (t = 1).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from robo_rlft.errors import ConfigError
from robo_rlft.policies import Policy
from robo_rlft.policies.chains.base import Chunk
from robo_rlft.policies.policy import Obs

TIME_SAMPLING = ("uniform", "beta", "logit_normal")


def bc_loss(
    policy: Policy,
    obs: Obs,
    action: Chunk,
    mask: Bool[Tensor, "batch chunk"],
    noise: Chunk,
    t: Float[Tensor, " batch"],
) -> Float[Tensor, ""]:
    """Mean squared error of the velocity over the actions that exist.

    Args:
        policy: the policy; a chain that does not start from noise regresses its mean.
        obs: observations with history.
        action: expert actions in the robot's units.
        mask: False where the chunk runs past the episode's end.
        noise: standard normal, x_0.
        t: times from `sample_time`.
    """
    cond = policy.encode(obs)
    target = policy.action_norm(action)
    start, time = (noise, t) if policy.chain.starts_from_noise else (torch.zeros_like(noise), torch.zeros_like(t))
    w = time[:, None, None]
    velocity = policy.network((1 - w) * start + w * target, time, cond)
    return masked_mean((velocity - (target - start)) ** 2, mask)


def masked_mean(x: Chunk, mask: Bool[Tensor, "batch chunk"]) -> Float[Tensor, ""]:
    """Mean over the valid actions and their entries."""
    weight = mask.unsqueeze(-1).to(x.dtype)
    return (x * weight).sum() / (weight.sum() * x.shape[-1]).clamp(min=1)


def sample_time(
    rows: int, how: str, generator: torch.Generator | None = None, device: torch.device | str = "cpu"
) -> Float[Tensor, " batch"]:
    """Times in [0, 1] for the flow loss.

    Args:
        rows: how many.
        how: `uniform`; `beta`: 1 - t ~ Beta(1.5, 1), more weight near the noise as in pi0 (Black et al. 2024);
            `logit_normal`: sigmoid of a standard normal (Esser et al. 2024).
        generator: source of randomness.
        device: where.

    Raises:
        ConfigError: an unknown distribution.
    """
    if how == "uniform":
        return torch.rand(rows, generator=generator, device=device)
    if how == "beta":
        # Beta(1.5, 1) has the distribution function s^1.5: invert it.
        return 1 - torch.rand(rows, generator=generator, device=device) ** (1 / 1.5)
    if how == "logit_normal":
        return torch.randn(rows, generator=generator, device=device).sigmoid()
    raise ConfigError(f"bc.time_sampling '{how}' is unknown: choose one of {', '.join(TIME_SAMPLING)}")
