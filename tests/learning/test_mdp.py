"""The two views of a chain as actions: schedules by hand, shapes, and the same gradient where they must agree."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from toys import CHAINS, observe, policy, roll

from robo_rlft.errors import ConfigError
from robo_rlft.learning import ppo
from robo_rlft.learning.config import PPOConfig
from robo_rlft.learning.mdp import DenoisingSteps, clip_schedule, mdp_of
from robo_rlft.policies import Policy
from robo_rlft.policies.chains import Path

STEPS = PPOConfig(mdp="steps", entropy_coef=0.0, fold_rows=0, denoise_gamma=1.0)


def experience(made: Policy, config: PPOConfig, rows: int = 12) -> ppo.PPOBatch:
    obs, (_, path) = observe(made, rows), roll(made, rows)
    executed = torch.where(torch.arange(rows) % 3 == 0, 2, made.config.chunk)
    advantage, target, value = torch.randn(3, rows, generator=torch.Generator().manual_seed(8)).to(path.action)
    log_prob = ppo.old_log_prob(made, obs, path, executed, config)
    return ppo.PPOBatch(obs, {"policy": obs["policy"][:, -1]}, path, executed, log_prob, advantage, target, value)


def test_clip_range_by_hand() -> None:
    # (e^1.5 - 1) / (e^3 - 1) = 1 / (e^1.5 + 1)
    assert clip_schedule(0.001, 0.01, 3) == pytest.approx([0.001, 0.001 + 0.009 / (math.exp(1.5) + 1), 0.01])
    assert clip_schedule(0.01, 0.01, 5) == pytest.approx([0.01] * 5)
    assert clip_schedule(0.001, 0.01, 1) == [0.01], "0 / 0 in the formula"


def test_discount_and_clip_grow_towards_the_action() -> None:
    view = DenoisingSteps(replace(STEPS, denoise_gamma=0.9, clip_first=0.001, clip=0.01), 3)
    advantage = view.advantage(torch.tensor([1.0, -2.0], dtype=torch.float64))
    assert advantage.tolist() == [pytest.approx([0.81, 0.9, 1.0]), pytest.approx([-1.62, -1.8, -2.0])]
    assert view.clip(advantage).tolist() == pytest.approx(clip_schedule(0.001, 0.01, 3))
    assert view.clip(advantage).shape == advantage.shape[1:]


def test_log_probs_of_the_trained_steps_by_hand() -> None:
    view = DenoisingSteps(STEPS, 2)
    entries = torch.arange(16.0).view(4, 1, 2, 2)
    mask = torch.ones(4, 1, 2, 1, dtype=torch.bool)
    mask[-1, :, 1] = False
    assert view.log_prob(entries, mask).tolist() == [[pytest.approx((8 + 9 + 10 + 11) / 4), pytest.approx(12.5)]]
    bounded = DenoisingSteps(replace(STEPS, entry_bounds=[-5.0, 9.5], aggregation="sum"), 2)
    assert bounded.log_prob(entries, mask).tolist() == [[8 + 9 + 9.5 + 9.5, 19.0]]


def test_mean_over_the_steps_that_were_taken() -> None:
    scored = torch.tensor([[True, True], [False, True], [True, False]])
    path = Path(torch.zeros(3, 2, 1, 1), scored, torch.zeros(2, 1, 1))
    x = torch.tensor([[7.0, 1.0], [3.0, 8.0]])
    assert float(DenoisingSteps(STEPS, 2).mean(x, path)) == 2.0


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("how", ppo.AGGREGATIONS)
def test_ratio_is_one_and_pieces_change_nothing(chain: str, how: str) -> None:
    made = policy(chain, dtype=torch.float64)
    config = replace(STEPS, aggregation=how)
    batch = experience(made, config)
    assert batch.log_prob.shape == (12, made.chain.window)
    loss, info = ppo.actor_loss(made, batch, config)
    loss.backward()
    assert info["ratio_error"] <= 1e-12
    whole = torch.cat([p.grad.flatten() for p in made.parameters() if p.grad is not None])
    made.zero_grad()
    for rows in (slice(0, 5), slice(5, 12)):
        part = batch[rows]
        (ppo.actor_loss(made, part, config)[0] * len(part) / 12).backward()
    pieces = torch.cat([p.grad.flatten() for p in made.parameters() if p.grad is not None])
    torch.testing.assert_close(pieces, whole, rtol=1e-9, atol=1e-13)
    assert whole.abs().max() > 0


def test_at_ratio_one_steps_and_chain_pull_alike() -> None:
    """With sums and no discount the gradient of the joint chain is K times that of the mean over its steps."""
    made = policy("reinflow", dtype=torch.float64)
    gradients = []
    for view in ("chain", "steps"):
        config = replace(STEPS, mdp=view, aggregation="sum")
        made.zero_grad()
        ppo.actor_loss(made, experience(made, config), config)[0].backward()
        gradients.append(torch.cat([p.grad.flatten() for p in made.parameters() if p.grad is not None]))
    torch.testing.assert_close(gradients[0], 4 * gradients[1], rtol=1e-8, atol=1e-12)


def test_dual_clip_by_hand() -> None:
    ratio = torch.tensor([10.0, 10.0, 0.1, 1.1])
    advantage = torch.tensor([1.0, -1.0, -1.0, -1.0])
    clip = torch.tensor(0.2)
    assert ppo.surrogate(ratio, advantage, clip, 3.0).tolist() == pytest.approx([1.2, -3.0, -0.8, -1.1])
    assert ppo.surrogate(ratio, advantage, clip).tolist() == pytest.approx([1.2, -10.0, -0.8, -1.1])


def test_unknown_view_is_named() -> None:
    with pytest.raises(ConfigError, match=r"'step' is unknown: choose one of chain, steps"):
        mdp_of(replace(STEPS, mdp="step"), 4)
