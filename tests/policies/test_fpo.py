"""FPO: its score is minus the cloning loss of the action that was sampled, on the pairs that were kept."""

from __future__ import annotations

import pytest
import torch
from toys import observe, policy, roll

from robo_rlft.learning.ppo import event_mask
from robo_rlft.policies.chains.fpo import FPO


@pytest.mark.parametrize("steps", [1, 4, 16])
def test_score_is_minus_the_mean_loss_of_the_pairs(steps: int) -> None:
    made = policy("fpo", steps=steps, fpo_pairs=3, dtype=torch.float64)
    assert isinstance(made.chain, FPO)
    cond, path = roll(made, 5)
    assert path.scored.all(1).tolist() == [False] * 4 + [True]
    *eps, z, action = path.latents
    share = torch.distributions.Normal(0.0, 1.0).cdf(z[:, 0, 0])
    losses = []
    for s in range(3):
        t = (s + share) / 3
        w = t[:, None, None]
        velocity = made.network((1 - w) * eps[s] + w * action, t, cond)
        losses.append((velocity - (action - eps[s])) ** 2)
    score = made.score(cond, path)
    torch.testing.assert_close(score.log_prob[-1], -torch.stack(losses).mean(0), rtol=0, atol=1e-12)
    assert not score.log_prob[:-1].any()
    assert not score.entropy.any()


def test_the_action_is_the_flows_and_its_unexecuted_tail_does_not_count() -> None:
    made, flow = policy("fpo"), policy("euler")
    flow.network.load_state_dict(made.network.state_dict())
    cond, noise = made.encode(observe(made, 6)), made.draw_noise(6)
    path = made.sample(cond, noise)
    torch.testing.assert_close(path.latents[-1], flow.sample(cond, noise[:1]).latents[-1])
    mask = event_mask(path, torch.full((6,), 1)).squeeze(-1)
    assert not mask[:-1].any()
    assert mask[-1].tolist() == [[True, False, False, False]] * 6


def test_a_velocity_nearer_to_the_action_is_more_likely() -> None:
    made = policy("fpo", dtype=torch.float64)
    cond, path = roll(made, 40)
    before = made.score(cond, path).log_prob.sum()
    before.backward()
    with torch.no_grad():
        for weight in made.network.parameters():
            if weight.grad is not None:
                weight.add_(1e-4 * weight.grad)
        assert made.score(cond, path).log_prob.sum() > before
