"""Minibatches of pairs of a chunk and a denoising step: each once per epoch, and the gradient of whole chunks."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.optim import SGD
from toys import observe, policy, roll

from robo_rlft.learning import ppo
from robo_rlft.learning.config import PPOConfig
from robo_rlft.policies import Critic, Policy

ROWS = 12
CHUNKS = PPOConfig(
    mdp="steps", epochs=1, minibatch=ROWS, entropy_coef=0.1, target_kl=0.0, grad_clip=0.0, fold_rows=0,
    denoise_gamma=0.9, clip=0.05, clip_first=0.01,
)  # fmt: skip
DDPM = {"steps": 6, "trained_steps": 3}


def experience(made: Policy, config: PPOConfig = CHUNKS) -> ppo.PPOBatch:
    obs, (_, path) = observe(made, ROWS), roll(made, ROWS)
    executed = torch.full((ROWS,), made.config.chunk)
    advantage, target, value = torch.randn(3, ROWS, generator=torch.Generator().manual_seed(8)).to(path.action)
    log_prob = ppo.old_log_prob(made, obs, path, executed, config)
    return ppo.PPOBatch(obs, {"policy": obs["policy"][:, -1]}, path, executed, log_prob, advantage, target, value)


def moved(made: Policy) -> Policy:
    """The policy after some learning, so that some ratios are clipped."""
    other = copy.deepcopy(made)
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(0.02 * torch.randn_like(weight))
    return other


def gradient(made: Policy, parts: list[ppo.PPOBatch], config: PPOConfig) -> Tensor:
    """Of the mean over parts of one size."""
    made = copy.deepcopy(made)
    for part in parts:
        (ppo.actor_loss(made, part, config)[0] / len(parts)).backward()
    return torch.cat([p.grad.flatten() for p in made.parameters() if p.grad is not None])


@pytest.mark.parametrize(("chain", "settings", "each"), [("ddpm", DDPM, 3), ("flow_sde", {}, 1), ("reinflow", {}, 4)])
def test_all_pairs_of_an_epoch_give_the_gradient_of_the_chunks(chain: str, settings: dict[str, int], each: int) -> None:
    made = policy(chain, dtype=torch.float64, **settings)
    batch, window = experience(made), made.chain.window
    rows, steps = batch.path.scored[-window:].T.nonzero(as_tuple=True)
    assert len(rows) == ROWS * each
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(2))
    parts = [ppo.single_steps(batch, rows[piece], steps[piece], slice(-window, None)) for piece in order.split(6)]
    config = CHUNKS if chain != "reinflow" else replace(CHUNKS, entropy_coef=0.0)
    other = moved(made)
    torch.testing.assert_close(gradient(other, parts, config), gradient(other, [batch], config), rtol=1e-9, atol=1e-12)


def test_a_pair_is_the_chunk_with_one_step_scored() -> None:
    made = policy("ddpm", **DDPM)
    batch = experience(made)
    pair = ppo.single_steps(batch, torch.tensor([4, 4]), torch.tensor([0, 2]), slice(-3, None))
    assert pair.path.scored.T.tolist() == [[False] * 4 + [True, False, False], [False] * 6 + [True]]
    assert torch.equal(pair.path.latents[:, 0], batch.path.latents[:, 4])
    assert pair.log_prob[0].tolist() == [batch.log_prob[4, 0], 0.0, 0.0]
    assert pair.log_prob[1].tolist() == [0.0, 0.0, batch.log_prob[4, 2]]


def test_an_epoch_sees_every_pair_once_and_begins_with_a_ratio_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    made = policy("ddpm", **DDPM)
    config = replace(CHUNKS, step_minibatch=True, minibatch=8, epochs=2, fold_rows=5)
    batch, seen, sizes = experience(made, config), [], []
    original = ppo.actor_loss

    def watched(policy: Policy, part: ppo.PPOBatch, config: PPOConfig) -> tuple[Tensor, dict[str, Tensor]]:
        sizes.append(len(part))
        seen.extend(zip(part.advantage.tolist(), part.path.scored.long().argmax(0).tolist(), strict=True))
        return original(policy, part, config)

    monkeypatch.setattr(ppo, "actor_loss", watched)
    critic = Critic(made.robot, [8])
    state = ppo.Learner(made, critic, SGD(made.parameters(), 0.0), SGD(critic.parameters(), 0.0))
    info = ppo.update(state, batch, config, torch.Generator().manual_seed(3))
    pairs = sorted((a, k) for a in batch.advantage.tolist() for k in (4, 5, 6))
    assert sorted(seen[: len(pairs)]) == sorted(seen[len(pairs) :]) == pairs
    assert seen[: len(pairs)] != seen[len(pairs) :], "in another order"
    assert sizes == [5, 3, 5, 3, 5, 3, 5, 3, 4] * 2, "minibatches of 8 in pieces of 5"
    assert info["updates"] == 2 * 5
    assert info["first_ratio_error"] < 1e-5


def test_without_a_bound_on_the_kl_no_minibatch_waits_for_its_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """A figure that becomes a number in the loop would make a GPU idle."""
    made = policy("ddpm", **DDPM)
    batch = experience(made)
    critic = Critic(made.robot, [8])
    state = ppo.Learner(made, critic, SGD(made.parameters(), 0.01), SGD(critic.parameters(), 0.01))
    asked: list[str] = []

    def number(self: Tensor) -> float:
        asked.append("float")
        return self.item()

    monkeypatch.setattr(Tensor, "__float__", number)
    config = replace(CHUNKS, minibatch=4, grad_clip=1.0)
    ppo.update(state, batch, config, torch.Generator())
    assert asked == []
    ppo.update(state, batch, replace(config, target_kl=100.0), torch.Generator())
    assert asked == ["float"] * 3, "once per minibatch"
