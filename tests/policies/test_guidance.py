"""Guidance: the two ends are the two policies, and Gaussians are tilted as the closed form says."""

from __future__ import annotations

import copy

import pytest
import torch
from toys import NETWORKS, Field, gaussian_field, nothing, observe, policy

from robo_rlft.errors import ConfigError
from robo_rlft.policies import ChainConfig, Cond, Policy
from robo_rlft.policies.chains import build_chain
from robo_rlft.policies.guidance import GuidedPolicy, GuidedVelocity


def pair(network: str = "mlp", **settings: object) -> tuple[Policy, Policy]:
    """A fine-tuned policy and the one it came from."""
    reference = policy("euler", network, **settings)  # pyright: ignore[reportArgumentType]
    tuned = policy("reinflow", network, **settings)  # pyright: ignore[reportArgumentType]
    with torch.no_grad():
        for weight in tuned.network.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return tuned, reference


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("network", NETWORKS)
def test_the_ends_are_the_two_policies_to_the_bit(network: str, precision: str) -> None:
    tuned, reference = pair(network, precision=precision)
    obs, noise = observe(tuned, 16), tuned.draw_noise(16)[:1]
    for weight, single in ((0.0, reference), (1.0, tuned)):
        guided = GuidedPolicy(tuned, reference, weight)
        with torch.no_grad():
            got = guided.sample(guided.encode(obs), noise, deterministic=True).action
            assert torch.equal(got, single.sample(single.encode(obs), noise, deterministic=True).action)


def test_rows_may_have_weights_of_their_own() -> None:
    tuned, reference = pair()
    guided = GuidedPolicy(tuned, reference, 1.0)
    obs, noise = observe(tuned, 2), tuned.draw_noise(2)[:1]
    with torch.no_grad():
        both = guided.sample(guided.encode(obs, torch.tensor([[0.0], [1.0]])), noise, deterministic=True).action
        ends = [p.sample(p.encode(obs), noise, deterministic=True).action for p in (reference, tuned)]
    assert torch.equal(both[0], ends[0][0])
    assert torch.equal(both[1], ends[1][1])


def mixed(means: tuple[float, float], stds: tuple[float, float], weight: float) -> tuple[float, float]:
    """Mean and standard deviation that the guided flow of two Gaussians ends in."""
    velocity = GuidedVelocity(*(gaussian_field(m, s) for m, s in zip(means, stds, strict=True)))
    chain = build_chain(ChainConfig(name="euler", steps=4000, latent_clip=0.0), (1, 1), 0)
    start = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    cond = Cond(torch.cat([nothing(2).vector, torch.full((2, 1), weight, dtype=torch.float64)], dim=-1))
    low, high = chain.sample(velocity, cond, start.view(1, 2, 1, 1)).latents[-1].flatten().tolist()
    return (low + high) / 2, (high - low) / 2


def tilted(means: tuple[float, float], stds: tuple[float, float], weight: float) -> tuple[float, float]:
    """The Gaussian proportional to p_0^(1 - w) p_1^w: precisions and precision-weighted means add up."""
    powers = (1 - weight, weight)
    precision = sum(p / s**2 for p, s in zip(powers, stds, strict=True))
    mean = sum(p * m / s**2 for p, m, s in zip(powers, means, stds, strict=True)) / precision
    return mean, precision**-0.5


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0, 2.0, 3.0])
def test_equal_covariances_are_tilted_exactly(weight: float) -> None:
    means, stds = (-0.2, 0.3), (0.4, 0.4)
    assert mixed(means, stds, weight) == pytest.approx(tilted(means, stds, weight), abs=2e-3)


def test_unequal_covariances_are_not() -> None:
    """The flow interpolates log standard deviations, the tilted density interpolates precisions."""
    found, exact = mixed((0.0, 0.0), (0.5, 0.25), 2.0)[1], tilted((0.0, 0.0), (0.5, 0.25), 2.0)[1]
    assert found == pytest.approx(0.125, abs=2e-3)
    assert exact == pytest.approx(0.189, abs=1e-3)


def test_what_does_not_belong_together_is_refused() -> None:
    tuned, reference = pair()
    with pytest.raises(ConfigError, match="velocities of flows"):
        GuidedPolicy(policy("gaussian", steps=1), reference, 1.5)
    with pytest.raises(ConfigError, match="K is 4 here and 2"):
        GuidedPolicy(tuned, policy("euler", steps=2), 1.5)
    with pytest.raises(ConfigError, match=r"policy\.chunk is 4 .* and 2"):
        GuidedPolicy(tuned, policy("euler", chunk=2), 1.5)
    other = copy.deepcopy(reference)
    other.action_norm.offset.add_(1)
    with pytest.raises(ConfigError, match="normalise differently"):
        GuidedPolicy(tuned, other, 1.5)


def test_it_has_no_likelihood() -> None:
    guided = GuidedPolicy(*pair(), 1.5)
    cond = guided.encode(observe(guided, 4))
    path = guided.sample(cond, guided.draw_noise(4))
    with pytest.raises(ConfigError, match="no likelihood"):
        guided.score(cond, path)


def test_the_field_of_a_toy_is_the_mixture() -> None:
    velocity = GuidedVelocity(Field(lambda x, t: x), Field(lambda x, t: 3 * x))
    x = torch.ones(2, 1, 1)
    assert velocity(x, torch.zeros(2), Cond(torch.tensor([[0.5], [2.0]]))).flatten().tolist() == [2.0, 5.0]
