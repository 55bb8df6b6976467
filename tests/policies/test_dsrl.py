"""DSRL: the start is the action. Its density, its entropy, and a flow that is never touched."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.distributions import Normal as Reference
from toys import NETWORKS, observe, policy, roll

from robo_rlft.errors import ConfigError
from robo_rlft.learning import ppo
from robo_rlft.learning.config import PPOConfig
from robo_rlft.policies import Policy
from robo_rlft.policies.guidance import GuidedPolicy

ROWS = 17
CONFIG = PPOConfig(entropy_coef=0.0, fold_rows=0)


def fresh(name: str = "dsrl", **settings: object) -> Policy:
    """As fine-tuning begins: lively flow weights, the same for every chain, and a start that is not yet learned."""
    made = policy(name, dtype=torch.float64, **settings)  # pyright: ignore[reportArgumentType]
    flow = policy("euler", dtype=torch.float64, **settings)  # pyright: ignore[reportArgumentType]
    made.network.load_state_dict(flow.network.state_dict())
    if name == "dsrl":
        made.chain.load_state_dict(Policy(made.config, made.robot).double().chain.state_dict())
    return made


def start_of(made: Policy) -> Reference:
    """The start from its formula, written out once more."""
    with torch.no_grad():
        raw = made.chain.get_submodule("steer")(made.encode(observe(made, ROWS)).vector).view(ROWS, *made.event)
        return Reference(made.config.chain.noise_bound * torch.tanh(raw), made.chain.get_parameter("log_std").exp())


def test_before_the_first_update_its_paths_are_those_of_the_flow() -> None:
    steered, flow = fresh(), fresh("euler")
    noise = steered.draw_noise(ROWS, torch.Generator().manual_seed(2))
    obs = observe(steered, ROWS)
    paths = [made.sample(made.encode(obs), noise) for made in (steered, flow)]
    assert torch.equal(paths[0].latents, paths[1].latents)
    assert torch.equal(paths[0].action, paths[1].action)


def test_without_exploration_it_starts_from_mu() -> None:
    steered, flow = policy("dsrl", dtype=torch.float64), policy("euler", dtype=torch.float64)
    flow.network.load_state_dict(steered.network.state_dict())
    cond, noise = steered.encode(observe(steered, ROWS)), steered.draw_noise(ROWS)[:1]
    path = steered.sample(cond, noise, deterministic=True)
    torch.testing.assert_close(path.latents[0], start_of(steered).mean, rtol=0, atol=1e-12)
    assert torch.equal(path.action, flow.sample(cond, path.latents[:1], deterministic=True).action)
    assert torch.equal(path.action, steered.sample(cond, 0 * noise, deterministic=True).action), "noise is unused"
    assert path.latents[0].abs().max() <= 1.5
    with pytest.raises(ConfigError, match="sampled deterministically"):
        steered.score(cond, path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("network", NETWORKS)
def test_the_score_is_the_density_of_the_start(network: str, steps: int, dtype: torch.dtype) -> None:
    made = policy("dsrl", network, steps=steps, dtype=dtype)
    cond, path = roll(made, ROWS)
    score, expected = made.score(cond, path), start_of(made)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(score.log_prob[0], expected.log_prob(path.latents[0]), rtol=0, atol=tolerance)
    torch.testing.assert_close(score.entropy[0], expected.entropy().expand_as(path.action), rtol=0, atol=tolerance)
    assert not score.log_prob[1:].any()
    assert path.scored.tolist() == [[True] * ROWS] + [[False] * ROWS] * steps


def test_expected_ratio_is_one() -> None:
    """E_old[p_new / p_old] = 1 holds only if the sampler draws from the density that is scored."""
    made = policy("dsrl", chunk=2, dtype=torch.float64)
    cond, path = roll(made, 40_000)
    with torch.no_grad():
        old = made.score(cond, path).log_prob.sum(dim=(0, 2, 3))
        for weight in made.chain.parameters():
            weight.add_(0.02 * torch.randn_like(weight))
        ratio = (made.score(cond, path).log_prob.sum(dim=(0, 2, 3)) - old).exp()
    assert ratio.std() > 0.02
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / len(ratio) ** 0.5


def test_the_gradient_reaches_the_start_and_nothing_else() -> None:
    made = policy("dsrl", dtype=torch.float64)
    cond, path = roll(made, ROWS)
    vector = cond.vector.clone().requires_grad_()
    made.score(type(cond)(vector), path).log_prob.sum().backward()
    assert vector.grad is None
    assert all(p.grad is None for p in made.network.parameters())
    assert all(p.grad is not None and p.grad.any() for p in made.chain.parameters())
    # d/dmu of the log-density is (x - mu) / sigma^2, and d/dlog sigma is z^2 - 1.
    start = start_of(made)
    z = (path.latents[0] - start.mean) / start.stddev
    torch.testing.assert_close(made.chain.get_parameter("log_std").grad, (z**2 - 1).sum(0))


@pytest.mark.parametrize("how", ppo.AGGREGATIONS)
def test_both_views_of_the_action_are_one(how: str) -> None:
    """x_0 is the whole path's only action and its only step; the whole of it counts, however much was executed."""
    made = policy("dsrl", dtype=torch.float64)
    obs, (cond, path) = observe(made, ROWS), roll(made, ROWS)
    executed, advantage = torch.full((ROWS,), 2), torch.randn(ROWS, dtype=torch.float64)
    whole = ppo.aggregate(made.score(cond, path).log_prob[:1], torch.ones(1, ROWS, 4, 1, dtype=torch.bool), how)
    losses = []
    for view in ("chain", "steps"):
        config = replace(CONFIG, mdp=view, aggregation=how, entropy_coef=0.1)
        old = ppo.old_log_prob(made, obs, path, executed, config)
        torch.testing.assert_close(old.flatten(), whole)
        batch = ppo.PPOBatch(obs, {}, path, executed, old, advantage, advantage, advantage)
        loss, info = ppo.actor_loss(made, batch, config)
        assert info["ratio_error"] <= 1e-12
        torch.testing.assert_close(info["entropy"], start_of(made).entropy().mean())
        losses.append(loss)
    torch.testing.assert_close(losses[0], losses[1])


def test_guidance_has_nothing_to_mix() -> None:
    made = policy("dsrl")
    with pytest.raises(ConfigError, match="'dsrl' leaves its own as it was"):
        GuidedPolicy(made, made, 1.5)
