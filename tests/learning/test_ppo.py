"""PPO on a chain: the surrogate's gradient, masks, guards, and that it learns."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import SGD, Adam
from toys import CHAINS, observe, policy, robot, roll

from robo_rlft.errors import ConfigError
from robo_rlft.learning import ppo
from robo_rlft.learning.config import PPOConfig
from robo_rlft.policies import Critic, Policy
from robo_rlft.policies.chains import Path

ROWS = 24
CONFIG = PPOConfig(epochs=1, minibatch=8, entropy_coef=0.0, target_kl=0.0, grad_clip=0.0, fold_rows=0)


def experience(made: Policy, config: PPOConfig = CONFIG, rows: int = ROWS) -> ppo.PPOBatch:
    """A rollout with random advantages; every third row executed only part of its chunk."""
    generator = torch.Generator().manual_seed(8)
    obs = observe(made, rows)
    _, path = roll(made, rows)
    executed = torch.where(torch.arange(rows) % 3 == 0, 2, made.config.chunk)
    dtype = made.action_norm.scale.dtype
    advantage, target, value = torch.randn(3, rows, generator=generator, dtype=dtype)
    log_prob = ppo.old_log_prob(made, obs, path, executed, config)
    newest = {"policy": obs["policy"][:, -1]}
    return ppo.PPOBatch(obs, newest, path, executed, log_prob, ppo.normalise(advantage), target, value)


def learner(made: Policy, lr: float = 0.01, reference: Policy | None = None) -> ppo.Learner:
    """Plain gradient descent, so that a step is the gradient."""
    torch.manual_seed(1)
    critic = Critic(made.robot, [8]).to(made.action_norm.scale.dtype)
    return ppo.Learner(made, critic, SGD(made.parameters(), lr), SGD(critic.parameters(), lr), reference=reference)


def weights(module: torch.nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten().clone() for p in module.parameters()])


def update(
    made: Policy, batch: ppo.PPOBatch, config: PPOConfig, **options: Any
) -> tuple[ppo.Learner, dict[str, float]]:
    made = copy.deepcopy(made)
    reference = copy.deepcopy(made).requires_grad_(False) if config.bc_coef else None
    state = learner(made, reference=reference)
    return state, ppo.update(state, batch, config, torch.Generator().manual_seed(3), **options)


def test_aggregation_by_hand() -> None:
    x = torch.arange(8.0).view(2, 1, 2, 2)
    mask = torch.tensor([[True, True], [True, False]]).view(2, 1, 2, 1)
    assert ppo.aggregate(x, mask, "sum").tolist() == [0 + 1 + 2 + 3 + 4 + 5]
    assert ppo.aggregate(x, mask, "mean").tolist() == [15 / 6]
    assert ppo.aggregate(torch.where(mask, x, torch.nan), mask, "sum").tolist() == [15], "what is masked cannot spoil"
    with pytest.raises(ConfigError, match=r"'max' is unknown: choose one of mean, sum"):
        ppo.aggregate(x, mask, "max")


def test_only_the_last_points_unexecuted_tail_is_masked() -> None:
    path = Path(torch.zeros(3, 2, 4, 1), torch.ones(3, 2, dtype=torch.bool), torch.zeros(2, 4, 1))
    mask = ppo.event_mask(path, torch.tensor([4, 1])).squeeze(-1)
    assert mask[:2].all()
    assert mask[2].tolist() == [[True] * 4, [True, False, False, False]]
    path.scored[0] = False
    assert not ppo.event_mask(path, torch.tensor([4, 1]))[0].any()


def test_unexecuted_final_actions_do_not_move_the_ratio() -> None:
    """Their density factorises out of the last transition; changing them must change nothing."""
    made = policy(dtype=torch.float64)
    batch = experience(made)
    changed = batch.path.latents.clone()
    changed[-1, ::3, 2:] += 5.0
    other = replace(batch, path=Path(changed, batch.path.scored, batch.path.action))
    assert torch.equal(ppo.actor_loss(made, other, CONFIG)[0], ppo.actor_loss(made, batch, CONFIG)[0])


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("how", ppo.AGGREGATIONS)
def test_gradient_at_ratio_one_is_reinforce(chain: str, how: str) -> None:
    """d/dtheta of -mean(A agg log pi), by central differences, is the gradient of the surrogate at ratio 1."""
    made = policy(chain, steps=2, dtype=torch.float64)
    config = replace(CONFIG, aggregation=how)
    batch = experience(made, config)
    loss, info = ppo.actor_loss(made, batch, config)
    loss.backward()
    assert info["ratio_error"].item() < 1e-12

    def reinforce() -> float:
        log_prob = ppo.old_log_prob(made, batch.obs, batch.path, batch.executed, config)
        return -float((batch.advantage * log_prob).mean())

    step, generator = 1e-6, torch.Generator().manual_seed(4)
    for weight in made.parameters():
        direction = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
        assert weight.grad is not None
        slope = float((weight.grad * direction).sum())
        with torch.no_grad():
            weight.add_(step * direction)
            above = reinforce()
            weight.sub_(2 * step * direction)
            below = reinforce()
            weight.add_(step * direction)
        assert slope == pytest.approx((above - below) / (2 * step), rel=1e-5, abs=1e-8)


def test_surrogate_by_hand() -> None:
    """Ratios 1.5 and .5 with both signs of the advantage, eps .2: min(r A, clip(r) A)."""
    made = policy("gaussian", dtype=torch.float64)
    config = replace(CONFIG, clip=0.2)
    batch = experience(made, config, rows=4)
    ratio = torch.tensor([1.5, 1.5, 0.5, 0.5], dtype=torch.float64)
    advantage = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    batch = replace(batch, log_prob=batch.log_prob - ratio.log(), advantage=advantage)
    loss, info = ppo.actor_loss(made, batch, config)
    assert loss.item() == pytest.approx(-(1.2 - 1.5 + 0.5 - 0.8) / 4)
    assert info["clipped"].item() == 1
    assert info["kl"].item() == pytest.approx(float((ratio - 1 - ratio.log()).mean()))
    assert info["ratio_error"].item() == pytest.approx(0.5)
    # Only the two rows that are not clipped away pull: r A = -1.5 and .5.
    loss.backward()
    pulled = torch.cat([p.grad.flatten() for p in made.parameters() if p.grad is not None])
    made.zero_grad()
    rows = torch.tensor([1, 2])
    log_prob = ppo.aggregate(
        made.score(made.encode(batch[rows].obs), batch[rows].path).log_prob,
        ppo.event_mask(batch[rows].path, batch[rows].executed),
        "mean",
    )
    (-(torch.tensor([-1.5, 0.5]) * log_prob).sum() / 4).backward()
    expected = torch.cat([p.grad.flatten() for p in made.parameters() if p.grad is not None])
    torch.testing.assert_close(pulled, expected, rtol=1e-9, atol=1e-12)


def test_entropy_bonus_by_hand() -> None:
    made = policy("gaussian", dtype=torch.float64)
    batch = experience(made)
    loss, info = ppo.actor_loss(made, replace(batch, advantage=0 * batch.advantage), replace(CONFIG, entropy_coef=0.5))
    entropy = torch.distributions.Normal(0.0, made.chain.get_parameter("log_std").detach().exp()).entropy()
    per_row = [float(entropy[: int(n)].mean()) for n in batch.executed]
    assert info["entropy"].item() == pytest.approx(sum(per_row) / len(per_row))
    assert loss.item() == pytest.approx(-0.5 * info["entropy"].item())


def test_starting_noise_adds_no_entropy() -> None:
    made = policy("reinflow", std_min=0.1, std_max=0.1, dtype=torch.float64)
    _, info = ppo.actor_loss(made, experience(made), CONFIG)
    assert info["entropy"].item() == pytest.approx(float(torch.distributions.Normal(0.0, 0.1).entropy()), rel=1e-6)


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("fold_rows", [1, 7, 8, 12, 1000])
def test_pieces_change_nothing_but_speed(chain: str, fold_rows: int) -> None:
    made = policy(chain, dtype=torch.float64)
    config = replace(CONFIG, epochs=2, minibatch=10, entropy_coef=0.01, bc_coef=0.1)
    batch = experience(made, config)
    whole, info = update(made, batch, config)
    pieces, other = update(made, batch, replace(config, fold_rows=fold_rows))
    torch.testing.assert_close(weights(pieces.policy), weights(whole.policy), rtol=0, atol=1e-13)
    assert other == pytest.approx(info, rel=1e-9, abs=1e-12)
    assert (weights(whole.policy) - weights(made)).abs().max() > 1e-6


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_first_ratio_is_one_and_is_reported(precision: str) -> None:
    made = policy(precision=precision)
    _, info = update(made, experience(made), replace(CONFIG, epochs=3))
    assert info["first_ratio_error"] <= 1e-5
    assert info["updates"] == 9


def test_kl_guard_stops_before_the_step() -> None:
    made = policy(dtype=torch.float64)
    batch = experience(made)
    far = replace(batch, log_prob=batch.log_prob - 0.5)
    config = replace(CONFIG, epochs=4, target_kl=0.05)
    stopped, info = update(made, far, config)
    assert info["updates"] == 1
    assert info["kl"] == pytest.approx(torch.tensor(0.5).exp().item() - 1 - 0.5)
    assert torch.equal(weights(stopped.policy), weights(made))
    _, unguarded = update(made, far, replace(config, target_kl=0.0))
    assert unguarded["updates"] == 12
    _, near = update(made, batch, config)
    assert near["updates"] == 12


def test_critic_warm_up_leaves_the_actor_alone() -> None:
    made = policy(dtype=torch.float64)
    state, info = update(made, experience(made), CONFIG, train_actor=False)
    assert torch.equal(weights(state.policy), weights(made))
    assert not torch.equal(weights(state.critic), weights(learner(made).critic))
    assert "actor_loss" not in info


def test_every_row_is_used_once_per_epoch() -> None:
    config = replace(CONFIG, epochs=3, minibatch=10)
    seen = list(ppo._orders(24, config, torch.Generator().manual_seed(0)))
    assert [len(rows) for rows in seen] == [10, 10, 4] * 3
    for epoch in range(3):
        assert torch.cat(seen[3 * epoch : 3 * epoch + 3]).sort().values.tolist() == list(range(24))


def test_regulariser_is_zero_for_equal_policies_and_keeps_the_noise() -> None:
    made = policy(dtype=torch.float64)
    batch, noise = experience(made), made.draw_noise(ROWS)[:1]
    kept = noise.clone()
    reference = copy.deepcopy(made)
    assert ppo.bc_regulariser(made, reference, batch, noise).item() == 0
    with torch.no_grad():
        for weight in made.network.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    distance = ppo.bc_regulariser(made, reference, batch, noise)
    distance.backward()
    assert torch.equal(noise, kept)
    cond = made.encode(batch.obs)
    apart = made.sample(cond, noise, True).latents[-1] - reference.sample(cond, noise, True).latents[-1]
    assert distance.item() == pytest.approx((apart**2).mean().item())
    assert distance.item() > 0
    assert all(p.grad is None for p in reference.parameters())


def test_regulariser_pulls_towards_the_reference() -> None:
    made = policy(dtype=torch.float64)
    batch = experience(made)
    still = replace(batch, advantage=torch.zeros_like(batch.advantage))
    moved = copy.deepcopy(made)
    with torch.no_grad():
        for weight in moved.network.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    state = learner(moved, lr=0.05, reference=made)
    noise = made.draw_noise(ROWS)[:1]
    before = ppo.bc_regulariser(moved, made, batch, noise).item()
    info = ppo.update(state, still, replace(CONFIG, bc_coef=1.0, epochs=20), torch.Generator().manual_seed(0))
    assert info["bc_distance"] > 0
    assert ppo.bc_regulariser(moved, made, batch, noise).item() < 0.7 * before


def test_value_loss_by_hand() -> None:
    made = policy(dtype=torch.float64)
    batch = experience(made, rows=3)
    critic = learner(made).critic
    value = critic(batch.critic_obs).detach()
    near = replace(batch, target=value + torch.tensor([1.0, 2.0, 0.0]).double(), value=value - 10)
    loss, info = ppo.critic_loss(critic, near, CONFIG)
    assert loss.item() == pytest.approx(0.5 * 5 / 3)
    # Clipped to within 1 of the old value, 9 below: the pessimistic error is the larger one.
    clipped, _ = ppo.critic_loss(critic, near, replace(CONFIG, value_clip=1.0))
    assert clipped.item() == pytest.approx(0.5 * (10**2 + 11**2 + 9**2) / 3)
    perfect = ppo.critic_loss(critic, replace(near, target=value), CONFIG)[1]
    assert perfect["explained_variance"].item() == pytest.approx(1.0)
    assert torch.equal(info["critic_loss"], loss)


def test_bound_of_the_log_probability() -> None:
    made = policy("reinflow", std_min=0.001, std_max=0.001, dtype=torch.float64)
    bounded = replace(CONFIG, log_ratio_bound=1.0)
    assert ppo.old_log_prob(made, *parts(experience(made)), CONFIG).min() > 2
    assert ppo.old_log_prob(made, *parts(experience(made)), bounded).tolist() == [1.0] * ROWS


def parts(batch: ppo.PPOBatch) -> tuple[dict[str, Tensor], Path, Tensor]:
    return batch.obs, batch.path, batch.executed


def test_normalised_advantages() -> None:
    x = ppo.normalise(torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 7 + 3)
    assert float(x.mean()) == pytest.approx(0, abs=1e-6)
    assert float(x.std()) == pytest.approx(1, abs=1e-4)
    assert ppo.normalise(torch.full((4,), 2.0)).tolist() == [0] * 4


@pytest.mark.parametrize(
    ("chain", "how", "clip", "lr", "precision"),
    [
        ("gaussian", "sum", 0.2, 0.005, "float32"),
        ("reinflow", "mean", 0.1, 0.003, "float32"),
        ("reinflow", "mean", 0.1, 0.003, "bfloat16"),
    ],
)
def test_learns_a_bandit_whose_best_action_depends_on_the_observation(
    chain: str, how: str, clip: float, lr: float, precision: str
) -> None:
    """Reward -(a - .6 o)^2 with o = +-1: the expected reward rises to near that of the noise alone."""
    noise = {"init_std": 0.3} if chain == "gaussian" else {"std_min": 0.05, "std_max": 0.2}
    made = policy(chain, steps=2, chunk=1, spec=robot(1, 1), lively=0.0, precision=precision, **noise)
    config = PPOConfig(
        epochs=4, minibatch=128, aggregation=how, clip=clip, entropy_coef=0.0, target_kl=0.0, log_ratio_bound=0.0
    )
    critic = Critic(made.robot, [16])
    state = ppo.Learner(made, critic, Adam(made.parameters(), lr), Adam(critic.parameters(), 0.01))
    generator = torch.Generator().manual_seed(0)
    obs = torch.tensor([-1.0, 1.0]).repeat(128).view(-1, 1, 1)
    executed = torch.ones(256, dtype=torch.long)

    def act(deterministic: bool) -> tuple[Path, Tensor]:
        with torch.no_grad():
            path = made.sample(made.encode({"policy": obs}), made.draw_noise(256, generator), deterministic)
        return path, -((path.action - 0.6 * obs) ** 2).flatten()

    before = float(act(True)[1].mean())
    for _ in range(25):
        path, reward = act(False)
        newest = {"policy": obs[:, 0]}
        with torch.no_grad():
            value = critic(newest)
        batch = ppo.PPOBatch(
            {"policy": obs},
            newest,
            path,
            executed,
            ppo.old_log_prob(made, {"policy": obs}, path, executed, config),
            ppo.normalise(reward - value),
            reward,
            value,
        )
        ppo.update(state, batch, config, generator)
    after = float(act(True)[1].mean())
    assert before < -0.1
    assert after > -0.02
    with torch.no_grad():
        assert float((critic({"policy": torch.tensor([[1.0]])}) - reward.mean()).abs()) < 0.2
