"""ReinFlow's noise: its bounds, its annealing, and that without it ReinFlow is Euler's method."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import observe, policy, roll

from robo_rlft.errors import ConfigError
from robo_rlft.policies import ChainConfig
from robo_rlft.policies.chains import build_chain
from robo_rlft.policies.chains.reinflow import ReinFlow
from robo_rlft.policies.condition import Cond


def chain(low: float = 0.1, high: float = 0.24) -> ReinFlow:
    made = build_chain(ChainConfig(name="reinflow", std_min=low, std_max=high), (2, 3), 5)
    assert isinstance(made, ReinFlow)
    return made.double()


@given(scale=st.floats(0, 1e6), t=st.floats(0, 1), low=st.floats(1e-3, 0.5), spread=st.floats(1, 10))
def test_std_stays_within_its_bounds(scale: float, t: float, low: float, spread: float) -> None:
    made = chain(low, low * spread)
    cond = Cond(scale * torch.randn(8, 5, dtype=torch.float64))
    std = made.std(cond, torch.full((8,), t, dtype=torch.float64))
    assert std.shape == (8, 2, 3)
    assert std.min() >= low * (1 - 1e-6)
    assert std.max() <= low * spread * (1 + 1e-6)


def test_std_reaches_both_bounds_and_starts_at_their_geometric_mean() -> None:
    made = chain()
    cond, t = Cond(torch.zeros(1, 5, dtype=torch.float64)), torch.zeros(1, dtype=torch.float64)
    last = made.noise[-1]
    assert isinstance(last, torch.nn.Linear)
    with torch.no_grad():
        last.weight.zero_()
        for bias, expected in ((-20.0, 0.1), (0.0, math.sqrt(0.1 * 0.24)), (20.0, 0.24)):
            last.bias.fill_(bias)
            torch.testing.assert_close(made.std(cond, t), torch.full((1, 2, 3), expected).double(), rtol=1e-6, atol=0)


def test_std_depends_on_time_and_observation() -> None:
    made = chain()
    a, b = torch.randn(2, 5, dtype=torch.float64)
    t = torch.tensor([0.0, 0.75, 0.0], dtype=torch.float64)
    std = made.std(Cond(torch.stack([a, a, b])), t)
    assert (std[0] - std[1]).abs().max() > 1e-6
    assert (std[0] - std[2]).abs().max() > 1e-6


@pytest.mark.parametrize(
    ("fraction", "share"), [(0.0, 1.0), (0.35, 1.0), (0.675, 0.85), (1.0, 0.7), (2.0, 0.7), (0.2, 1.0)]
)
def test_annealing_holds_then_follows_half_a_cosine(fraction: float, share: float) -> None:
    made = chain()
    made.set_progress(fraction, hold=0.35, final=0.7)
    assert float(made.std_bound) == pytest.approx(0.1 + share * 0.14)


def test_annealing_can_be_switched_off_and_is_saved() -> None:
    made = chain()
    made.set_progress(1.0, hold=0.0, final=1.0)
    assert float(made.std_bound) == pytest.approx(0.24)
    made.set_progress(1.0, hold=0.0, final=0.5)
    other = chain()
    other.load_state_dict(made.state_dict())
    assert float(other.std_bound) == pytest.approx(0.17)


@pytest.mark.parametrize("latent_clip", [0.0, 0.3])
def test_without_noise_reinflow_is_euler(latent_clip: float) -> None:
    noisy = policy("reinflow", latent_clip=latent_clip)
    flow = policy("euler", latent_clip=latent_clip)
    flow.network.load_state_dict(noisy.network.state_dict())
    cond = noisy.encode(observe(noisy, 6))
    noise = noisy.draw_noise(6)
    expected = flow.sample(cond, noise).latents
    assert torch.equal(noisy.sample(cond, noise, deterministic=True).latents, expected)
    assert not torch.equal(noisy.sample(cond, noise).latents, expected)


def test_the_mean_is_clipped_before_the_noise_is_added() -> None:
    made = policy("reinflow", latent_clip=0.2, std_min=0.1, std_max=0.1, dtype=torch.float64)
    cond, path = roll(made, 300)
    for k in range(4):
        t = torch.full((300,), k / 4, dtype=torch.float64)
        assert made.chain.transition(made.network, cond, path.latents[k], t).mean.abs().max() <= 0.2
    assert path.latents[1:].abs().max() > 0.3
    assert path.latents[1:].abs().max() <= 0.2 + 3 * 0.1 + 1e-9


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.1), (-0.1, 0.1), (0.3, 0.2)])
def test_impossible_bounds_are_named(low: float, high: float) -> None:
    with pytest.raises(ConfigError, match=r"0 < std_min <= std_max, got"):
        chain(low, high)
