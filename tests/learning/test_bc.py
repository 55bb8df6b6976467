"""Behaviour cloning: the flow loss where its minimum is known, and the times it draws."""

from __future__ import annotations

import math

import pytest
import torch
from toys import Field, gaussian_field, observe, policy, robot

from robo_rlft.errors import ConfigError
from robo_rlft.learning.bc import TIME_SAMPLING, bc_loss, masked_mean, sample_time


@pytest.mark.parametrize("std", [0.3, 1.0, 2.0])
def test_the_exact_velocity_reaches_the_closed_form_minimum(std: float) -> None:
    """Var(x_1 - x_0 | x_t) = s^2 / (t^2 s^2 + (1 - t)^2); its integral over t is s pi / 2."""
    rows, mean = 200_000, 0.4
    made = policy("euler", chunk=1, spec=robot(1, 1), dtype=torch.float64)
    made.network = gaussian_field(mean, std)
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(2, rows, 1, 1, generator=generator, dtype=torch.float64)
    action = made.to_robot(mean + std * draws[0])
    # Evenly spread times: only the noise of the draws is left.
    t = ((torch.arange(rows) + 0.5) / rows).double()[torch.randperm(rows, generator=generator)]
    obs = {"policy": torch.zeros(rows, 1, 1, dtype=torch.float64)}
    mask = torch.ones(rows, 1, dtype=torch.bool)
    loss = float(bc_loss(made, obs, action, mask, draws[1], t, t))
    assert loss == pytest.approx(std * math.pi / 2, rel=0.015)
    exact = made.network
    made.network = Field(lambda x, t: exact.velocity(x, t) + 0.1)
    assert float(bc_loss(made, obs, action, mask, draws[1], t, t)) == pytest.approx(loss + 0.01, rel=0.01)


def test_time_runs_from_noise_to_data() -> None:
    made = policy("euler", dtype=torch.float64)
    seen = []
    made.network = Field(lambda x, t: seen.append((x, t)) or torch.zeros_like(x))
    obs, noise, action = observe(made, 2), made.draw_noise(2)[0], made.to_robot(made.draw_noise(2)[0])
    t = torch.tensor([0.0, 1.0]).double()
    loss = bc_loss(made, obs, action, torch.ones(2, 4, dtype=torch.bool), noise, t, t)
    x, t = seen[0]
    assert t.flatten().tolist() == [0, 1]
    torch.testing.assert_close(x, torch.stack([noise[0], made.action_norm(action)[1]]))
    torch.testing.assert_close(loss, ((made.action_norm(action) - noise) ** 2).mean())


def test_actions_beyond_the_episode_do_not_count() -> None:
    made = policy("euler", dtype=torch.float64)
    obs, noise, t = observe(made, 3), made.draw_noise(3)[0], torch.rand(3).double()
    mask = torch.tensor([[True, True, False, False], [True, True, True, True], [True, False, False, False]])
    made.network = Field(lambda x, t: torch.zeros_like(x))
    action = made.draw_noise(3)[0]
    wild = torch.where(mask[..., None], action, 1e6)
    assert float(bc_loss(made, obs, wild, mask, noise, t, t)) == float(bc_loss(made, obs, action, mask, noise, t, t))


def test_masked_mean_by_hand() -> None:
    x = torch.tensor([[[1.0, 2.0], [30.0, 40.0]], [[3.0, 4.0], [5.0, 6.0]]])
    assert float(masked_mean(x, torch.tensor([[True, False], [True, True]]))) == pytest.approx(21 / 6)
    assert float(masked_mean(x, torch.zeros(2, 2, dtype=torch.bool))) == 0


def test_a_gaussian_chain_regresses_its_mean() -> None:
    made = policy("gaussian", dtype=torch.float64, latent_clip=0.0)
    obs, action = observe(made, 5), made.draw_noise(5)[0]
    cond = made.encode(obs)
    mean = made.chain.transition(made.network, cond, torch.zeros_like(action), torch.zeros(5).double()).mean
    t = torch.rand(5).double()
    loss = bc_loss(made, obs, action, torch.ones(5, 4, dtype=torch.bool), made.draw_noise(5)[0], t, t)
    torch.testing.assert_close(loss, ((mean - made.action_norm(action)) ** 2).mean())


@pytest.mark.parametrize(
    ("how", "mean", "variance"),
    [("uniform", 0.5, 1 / 12), ("beta", 0.4, 1.5 / (2.5**2 * 3.5)), ("logit_normal", 0.5, 0.0433790)],
)
def test_moments_of_the_times(how: str, mean: float, variance: float) -> None:
    """Beta(a, b) has mean a / (a + b) and variance a b / ((a + b)^2 (a + b + 1)); the last by quadrature."""
    rows = 200_000
    t = sample_time(rows, how, torch.Generator().manual_seed(0)).double()
    assert t.min() >= 0
    assert t.max() <= 1
    assert float(t.mean()) == pytest.approx(mean, abs=4 * math.sqrt(variance / rows))
    assert float(t.var()) == pytest.approx(variance, rel=0.015)


def test_times_follow_their_distribution_functions() -> None:
    draws = {how: sample_time(100_000, how, torch.Generator().manual_seed(1)) for how in TIME_SAMPLING}
    for level in (0.1, 0.5, 0.8):
        expected = {
            "uniform": level,
            "beta": 1 - (1 - level) ** 1.5,
            "logit_normal": 0.5 * (1 + math.erf(math.log(level / (1 - level)) / math.sqrt(2))),
        }
        for how, probability in expected.items():
            assert float((draws[how] < level).float().mean()) == pytest.approx(probability, abs=0.007), how


def test_unknown_times_are_named() -> None:
    with pytest.raises(ConfigError, match=r"'cosine' is unknown: choose one of uniform, beta"):
        sample_time(1, "cosine")
