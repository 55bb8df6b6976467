"""Advantage-weighted regression against hand computations."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from toys import observe, policy, roll

from robo_rlft.learning import awr, ppo
from robo_rlft.learning.bc import bc_loss
from robo_rlft.learning.config import PPOConfig
from robo_rlft.policies import Critic, Policy

ROWS = 12
CONFIG = PPOConfig(objective="awr", awr_temperature=0.5, epochs=1, minibatch=ROWS, fold_rows=0, grad_clip=0.0)


def experience(made: Policy) -> ppo.PPOBatch:
    obs, (_, path) = observe(made, ROWS), roll(made, ROWS)
    executed = torch.where(torch.arange(ROWS) % 3 == 0, 2, made.config.chunk)
    advantage, target, value = torch.randn(3, ROWS, generator=torch.Generator().manual_seed(8)).to(path.action)
    newest = {"policy": obs["policy"][:, -1]}
    return ppo.PPOBatch(obs, newest, path, executed, torch.zeros(ROWS), advantage, target, value)


def loss_of(made: Policy, batch: ppo.PPOBatch, draws: awr.Draws, config: PPOConfig = CONFIG) -> torch.Tensor:
    return awr.awr_loss(made, batch.obs, batch.path.latents[-1], batch.executed, batch.advantage, draws, config)[0]


def test_weights_by_hand() -> None:
    got = awr.weights(torch.tensor([0.0, 0.5, -1.0, 9.0]), CONFIG)
    assert got.tolist() == pytest.approx([1, math.e, math.exp(-2), 20])


def test_loss_by_hand() -> None:
    """Of a flow: each row's mean over its executed entries of (v(x_t, t) - (a - eps))^2, times its weight."""
    made = policy("euler", dtype=torch.float64)
    batch, draws = experience(made), awr.draw(made, ROWS, 2, torch.Generator().manual_seed(1))
    cond, expected = made.encode(batch.obs), []
    assert ((draws.t[0] < 0.5) & (draws.t[1] >= 0.5)).all(), "one time in each half"
    for i, n in enumerate(batch.executed.tolist()):
        squares = []
        for eps, t in zip(draws.noise[:, i], draws.t[:, i], strict=True):
            a = batch.path.latents[-1][i]
            velocity = made.network(((1 - t) * eps + t * a)[None], t[None], cond[i : i + 1])[0]
            squares.append(((velocity - (a - eps)) ** 2)[:n].mean().detach())
        expected.append(min(math.exp(2 * float(batch.advantage[i])), 20.0) * float(sum(squares)) / 2)
    assert loss_of(made, batch, draws).item() == pytest.approx(sum(expected) / ROWS, rel=1e-12)


def test_without_advantages_it_is_behaviour_cloning() -> None:
    made = policy("euler", dtype=torch.float64)
    batch, draws = experience(made), awr.draw(made, ROWS, 1, torch.Generator().manual_seed(1))
    level = replace(batch, advantage=0 * batch.advantage, executed=torch.full((ROWS,), made.config.chunk))
    mask = torch.ones(ROWS, made.config.chunk, dtype=torch.bool)
    action = made.to_robot(batch.path.latents[-1])
    cloning = bc_loss(made, batch.obs, action, mask, draws.noise[0], draws.t[0], draws.u[0])
    torch.testing.assert_close(loss_of(made, level, draws), cloning)


def test_a_gaussian_is_the_published_weighted_likelihood() -> None:
    """Minus log N(a; mu, 1/2) is the squared error but for a constant: the gradients are equal."""
    made = policy("gaussian", dtype=torch.float64, latent_clip=0.0)
    batch, draws = experience(made), awr.draw(made, ROWS, 1, torch.Generator().manual_seed(1))
    loss_of(made, batch, draws).backward()
    got = torch.cat([p.grad.flatten() for p in made.network.parameters() if p.grad is not None])
    made.zero_grad()
    mean = made.network(0 * draws.noise[0], 0 * draws.t[0], made.encode(batch.obs))
    density = torch.distributions.Normal(mean, math.sqrt(0.5)).log_prob(batch.path.latents[-1])
    rows = torch.stack([density[i, :n].mean() for i, n in enumerate(batch.executed.tolist())])
    (-((batch.advantage / 0.5).exp().clamp(max=20) * rows).mean()).backward()
    expected = torch.cat([p.grad.flatten() for p in made.network.parameters() if p.grad is not None])
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("chain", ["euler", "reinflow", "gaussian", "ddpm", "shortcut"])
def test_a_step_pulls_towards_the_better_action(chain: str) -> None:
    """The cloning error of the row with the large weight falls more than that of the row with the small one."""
    made = policy(chain, dtype=torch.float64)
    advantage = torch.where(torch.arange(ROWS) < 6, 1.0, -1.0).double()
    batch = replace(experience(made), advantage=advantage)
    draws = awr.draw(made, ROWS, 1, torch.Generator().manual_seed(1))

    def error() -> tuple[float, float]:
        with torch.no_grad():
            cond = made.encode(batch.obs)
            wrong = made.chain.cloning_error(
                made.network, cond, batch.path.latents[-1], draws.noise[0], draws.t[0], draws.u[0]
            ).square().mean((1, 2))  # fmt: skip
        return float(wrong[:6].mean()), float(wrong[6:].mean())

    before = error()
    for _ in range(20):
        made.zero_grad()
        loss_of(made, batch, draws).backward()
        with torch.no_grad():
            for weight in made.network.parameters():
                weight.sub_(0.01 * weight.grad)
    after = error()
    assert after[0] < before[0]
    assert before[0] - after[0] > before[1] - after[1]


def test_pieces_change_nothing_but_speed() -> None:
    moved = []
    for fold_rows in (0, 8):
        made = policy("euler", dtype=torch.float64)
        critic = Critic(made.robot, [8]).double()
        optimisers = (torch.optim.SGD(m.parameters(), 0.1) for m in (made, critic))
        learner = ppo.Learner(made, critic, *optimisers)
        config = replace(CONFIG, fold_rows=fold_rows, target_kl=1e-9)
        info = ppo.update(learner, experience(made), config, torch.Generator().manual_seed(3))
        assert info["updates"] == 1
        assert info["actor_grad_norm"] > 0
        moved.append(torch.cat([p.detach().flatten() for p in made.parameters()]))
    torch.testing.assert_close(moved[0], moved[1], rtol=0, atol=1e-13)
