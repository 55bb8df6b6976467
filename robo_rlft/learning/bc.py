"""Behaviour cloning of chains: conditional flow matching (Lipman et al. 2023), or what else a chain's network learns.

    x_t = (1 - t) x_0 + t x_1,   x_0 ~ N(0, I),  x_1 an expert's chunk,   loss = E || v(x_t, t, obs) - (x_1 - x_0) ||^2

Time runs from noise (t = 0) to data (t = 1). The error that is squared is the chain's (`Chain.cloning_error`): of a
velocity, of noise (DDPM, DDIM), of a velocity for a step size (shortcut, mean flow), or of the mean of a Gaussian.
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
    u: Float[Tensor, " batch"],
) -> Float[Tensor, ""]:
    """Mean squared error of the chain's prediction over the actions that exist.

    Args:
        policy: the policy.
        obs: observations with history.
        action: expert actions in the robot's units.
        mask: False where the chunk runs past the episode's end.
        noise: standard normal, x_0.
        t: times from `sample_time`.
        u: uniform in [0, 1], for chains that draw a second time.
    """
    cond, data = policy.encode(obs), policy.action_norm(action)
    error = policy.chain.cloning_error(policy.network, cond, data, noise, t, u)
    return masked_mean(error**2, mask)


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
