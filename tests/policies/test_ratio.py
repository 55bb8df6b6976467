"""The first promise of a chain: right after sampling, the likelihood ratio of the unchanged policy is 1."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from toys import CHAINS, NETWORKS, observe, policy, roll

from robo_rlft.learning.ppo import aggregate, event_mask
from robo_rlft.policies import Policy
from robo_rlft.policies.chains import Path

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
MANY = ("flow_sde", "flow_noise", "shortcut", "mean_flow", "ddpm", "ddim")
CASES: list[tuple[str, int, dict[str, Any]]] = [
    ("gaussian", 1, {}),
    *(("reinflow", steps, {}) for steps in (1, 2, 4, 8)),
    *((chain, steps, {}) for chain in MANY for steps in (1, 4)),
    ("flow_sde", 4, {"sde_steps": "all"}),
    ("ddpm", 8, {"trained_steps": 3}),
    ("ddim", 4, {"levels": 20, "trained_steps": 2, "eta": 0.5}),
]
"""Chains with a likelihood, their number of steps and settings."""
ROWS = 17
"""Odd, so that vectorised kernels have a rest to work off."""


def sampled_log_prob(made: Policy, noise: Tensor, path: Path) -> Tensor:
    """Log-density of what the sampler did, from the noise it used: log N(z; 0, 1) - log std. It needs no mean."""
    cond = made.encode(observe(made, noise.shape[1]))
    bound = made.config.chain.noise_clip
    used = noise.clamp(-bound, bound) if bound else noise
    rows = [torch.distributions.Normal(0.0, 1.0).log_prob(noise[0])]
    for k in range(made.chain.steps):
        t = torch.full((noise.shape[1],), made.chain.times[k], dtype=noise.dtype)
        std = made.chain.transition(made.network, cond, path.latents[k], t).std
        rows.append(torch.distributions.Normal(0.0, 1.0).log_prob(used[k + 1]) - std.log())
    return torch.stack(rows) * path.scored[..., None, None]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("chain", "steps", "settings"), CASES)
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("chunk", [2, 4, 7])
def test_ratio_is_one(
    chain: str, network: str, steps: int, settings: dict[str, Any], chunk: int, dtype: torch.dtype
) -> None:
    made = policy(chain, network, steps=steps, chunk=chunk, dtype=dtype, **settings)
    noise = made.draw_noise(ROWS, torch.Generator().manual_seed(2))
    with torch.no_grad():
        cond = made.encode(observe(made, ROWS))
        path = made.sample(cond, noise)
        mask = event_mask(path, torch.full((ROWS,), chunk))
        old = aggregate(sampled_log_prob(made, noise, path), mask, "mean")
        for fold_rows in (0, 3 * ROWS) if steps > 3 else (0,):
            new = aggregate(made.score(cond, path, fold_rows).log_prob, mask, "mean")
            assert (new - old).exp().sub(1).abs().max() <= TOLERANCE[dtype]


@pytest.mark.parametrize(("chain", "obs_horizon"), list(product(CHAINS, (1, 2, 3))))
def test_ratio_is_one_with_history(chain: str, obs_horizon: int) -> None:
    made = policy(chain, obs_horizon=obs_horizon, dtype=torch.float64)
    cond, path = roll(made, ROWS)
    whole = made.score(cond, path).log_prob
    rows = torch.tensor([7, 0, 16])
    part = made.score(cond[rows], path[rows]).log_prob
    assert (whole[:, rows] - part).abs().max() <= 1e-12


@pytest.mark.parametrize("chain", CHAINS)
def test_the_ratio_sees_a_changed_policy(chain: str) -> None:
    made = policy(chain, dtype=torch.float64)
    cond, path = roll(made, ROWS)
    before = made.score(cond, path).log_prob
    with torch.no_grad():
        for weight in made.network.parameters():
            weight.mul_(1.01)
    assert (made.score(cond, path).log_prob - before).abs().max() > 1e-4


@pytest.mark.parametrize("chain", CHAINS)
def test_expected_ratio_is_one(chain: str) -> None:
    """E_old[p_new / p_old] = 1 holds only if the sampler draws from the density that is scored."""
    made = policy(chain, steps=2, chunk=2, dtype=torch.float64, noise_clip=0.0)
    cond, path = roll(made, 40_000)
    with torch.no_grad():
        old = made.score(cond, path).log_prob.sum(dim=(0, 2, 3))
        for weight in made.parameters():
            weight.add_(0.02 * torch.randn_like(weight))
        ratio = (made.score(cond, path).log_prob.sum(dim=(0, 2, 3)) - old).exp()
    error = ratio.std() / len(ratio) ** 0.5
    assert ratio.std() > 0.05
    assert abs(ratio.mean() - 1) < 4 * error
