"""The likelihood of a path against independent computations."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal as Reference
from torch.distributions import kl_divergence
from toys import CHAINS, NETWORKS, Field, nothing, observe, policy, roll

from robo_rlft.errors import ConfigError
from robo_rlft.policies import ChainConfig, Cond, Policy
from robo_rlft.policies.chains import Normal, build_chain


def sines(t: float, like: Tensor, shortest: float = 0.1) -> Tensor:
    """Sixteen features of a time or span, [1, 16]."""
    angles = [t * 2 * math.pi / 1000 * (1000 / shortest) ** (i / 7) for i in range(8)]
    return like.new_tensor([[math.sin(a) for a in angles] + [math.cos(a) for a in angles]])


def reference_step(made: Policy, cond: Cond, x: Tensor, k: int) -> Reference:
    """Step k from the formula of its chain, written out once more."""
    config, rows = made.config.chain, len(x)
    if config.name in ("ddpm", "ddim"):
        return diffusion_step(made, cond, x, k)
    t, bound = k / config.steps, config.latent_clip or math.inf
    if config.name in ("shortcut", "mean_flow"):
        span = sines(1 / config.steps, x, 4.0 if config.name == "mean_flow" else 0.1)
        told = Cond(torch.cat([cond.vector, span.expand(rows, -1)], dim=1))
    else:
        told = cond
    velocity = made.network(x, torch.full((rows,), t, dtype=x.dtype), told)
    if config.name == "gaussian":
        return Reference((x + velocity).clamp(-bound, bound), made.chain.get_parameter("log_std").exp())
    if config.name == "flow_sde":
        # Drift v + s^2 / 2 times the score, which is -(x - t v) / (1 - t), over a step of d.
        d = 1 / config.steps
        s = config.sde_noise * math.sqrt((1 - t) / max(t, d))
        mean = x + d * (velocity - s**2 / (2 * (1 - t)) * (x - t * velocity))
        return Reference(mean.clamp(-bound, bound), s * math.sqrt(d))
    if config.name == "flow_noise" and hasattr(made.network, "velocity_and_features"):
        inputs = made.network.velocity_and_features(x, torch.full((rows,), t, dtype=x.dtype), cond)[1]
    else:
        inputs = torch.cat([sines(t, x).expand(rows, -1), cond.vector], dim=1)
    raw = made.chain.get_submodule("noise")(inputs)
    low, high = math.log(config.std_min**2), math.log(config.std_max**2)
    std = torch.exp(0.5 * (low + (high - low) * (torch.tanh(raw) + 1) / 2)).view(rows, *made.event)
    return Reference((x + velocity / config.steps).clamp(-bound, bound), std)


def diffusion_step(made: Policy, cond: Cond, x: Tensor, k: int) -> Reference:
    """The posterior as a product of two Gaussians (DDPM), or DDIM's step."""
    config = made.config.chain
    levels = config.levels or config.steps
    stride = levels // config.steps
    signal = [math.cos((i / levels + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(levels + 1)]
    kept = [math.prod(max(signal[j + 1] / signal[j], 0.001) for j in range(i + 1)) for i in range(levels)]
    level = levels - 1 - (levels - 1 - (config.steps - 1 - k) * stride)
    now, after = kept[level], kept[level - stride] if level >= stride else 1.0
    t = torch.full((len(x),), (levels - 1 - level) / levels, dtype=x.dtype)
    bound = config.latent_clip or math.inf
    action = ((x - math.sqrt(1 - now) * made.network(x, t, cond)) / math.sqrt(now)).clamp(-bound, bound)
    if config.name == "ddim":
        std = config.eta * math.sqrt((1 - after) / (1 - now) * (1 - now / after))
        noise = (x - math.sqrt(now) * action) / math.sqrt(1 - now)
        mean = math.sqrt(after) * action + math.sqrt(max(1 - after - std**2, 0)) * noise
        return Reference(mean, max(std, config.score_std_min))
    if after == 1.0:
        return Reference(action, config.score_std_min)
    # q(x' | x0) = N(sqrt(abar') x0, 1 - abar') times q(x | x') = N(sqrt(alpha) x', beta).
    alpha = now / after
    precision = 1 / (1 - after) + alpha / (1 - alpha)
    mean = (math.sqrt(after) * action / (1 - after) + math.sqrt(alpha) * x / (1 - alpha)) / precision
    return Reference(mean, max(1 / math.sqrt(precision), config.score_std_min))


@pytest.mark.parametrize(
    ("chain", "settings"),
    [*((c, {}) for c in CHAINS), ("flow_sde", {"sde_steps": "all"}), ("ddim", {"levels": 12, "eta": 0.6})],
)
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("latent_clip", [0.0, 1.0])
def test_log_prob_and_entropy_step_by_step(chain: str, settings: dict, network: str, latent_clip: float) -> None:
    # Few times are exact in binary; float32 buffers would show.
    made = policy(chain, network, steps=3, dtype=torch.float64, latent_clip=latent_clip, **settings)
    cond, path = roll(made, 5)
    score = made.score(cond, path)
    if made.chain.scores_start and made.chain.starts_from_noise:
        expected = Reference(0.0, 1.0).log_prob(path.latents[0])
        torch.testing.assert_close(score.log_prob[0], expected, rtol=0, atol=1e-12)
    else:
        assert not score.log_prob[0].any()
    assert path.latents[0].any() == made.chain.starts_from_noise
    assert not score.entropy[0].any()
    for k in range(made.chain.steps):
        step = reference_step(made, cond, path.latents[k], k)
        scored = path.scored[k + 1, :, None, None]
        expected = torch.where(scored, step.log_prob(path.latents[k + 1]), 0.0)
        torch.testing.assert_close(score.log_prob[k + 1], expected, rtol=0, atol=1e-10)
        expected = step.entropy().expand_as(expected) * scored
        torch.testing.assert_close(score.entropy[k + 1], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("network", NETWORKS)
def test_gradient_against_finite_differences(chain: str, network: str) -> None:
    made = policy(chain, network, steps=2, chunk=4, dtype=torch.float64)
    cond, path = roll(made, 3)

    def total() -> Tensor:
        return made.score(cond, path).log_prob.sum()

    total().backward()
    for part in (made.network, made.chain):
        if weights := list(part.parameters()):
            check_slope(weights, total)


def check_slope(weights: list[nn.Parameter], function: Callable[[], Tensor], step: float = 1e-6) -> None:
    """The gradients along a random direction against a central difference."""
    generator = torch.Generator().manual_seed(3)
    directions = [torch.randn(w.shape, generator=generator, dtype=w.dtype) for w in weights]
    slope = sum(float((w.grad * d).sum()) for w, d in zip(weights, directions, strict=True) if w.grad is not None)
    values = []
    with torch.no_grad():
        for move in (step, -2 * step, step):
            for weight, direction in zip(weights, directions, strict=True):
                weight.add_(move * direction)
            values.append(float(function()))
    assert slope != 0
    assert slope == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-6, abs=1e-5)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("chain", [c for c in CHAINS if c != "gaussian"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 3e-6), (torch.float64, 1e-12)])
def test_folded_gradient_is_the_plain_loops(network: str, chain: str, dtype: torch.dtype, tolerance: float) -> None:
    made = policy(chain, network, steps=8, dtype=dtype)
    cond, path = roll(made, 64)
    gradients = []
    for fold_rows in (1, 0, 128, 3 * 64):
        made.zero_grad()
        made.score(cond, path, fold_rows).log_prob.sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in made.parameters() if p.grad is not None]))
    for folded in gradients[1:]:
        assert (folded - gradients[0]).norm() / gradients[0].norm() <= tolerance


def test_noise_gradient_stops_at_the_condition() -> None:
    made = policy("reinflow", dtype=torch.float64)
    made.network = Field(lambda x, t: -x)
    cond, path = roll(made, 4)
    vector = cond.vector.clone().requires_grad_()
    made.score(type(cond)(vector), path).log_prob.sum().backward()
    assert vector.grad is None


def test_normal_closed_forms() -> None:
    generator = torch.Generator().manual_seed(5)
    draws = torch.randn(5, 6, 3, 2, generator=generator, dtype=torch.float64)
    a, b = Normal(draws[0], draws[1].exp()), Normal(draws[2], draws[3].exp())
    left, right = Reference(a.mean, a.std), Reference(b.mean, b.std)
    torch.testing.assert_close(a.log_prob(draws[4]), left.log_prob(draws[4]))
    torch.testing.assert_close(a.entropy(), left.entropy())
    torch.testing.assert_close(a.kl(b), kl_divergence(left, right))
    assert not a.kl(a).any()


def test_normal_in_numbers() -> None:
    unit = Normal(torch.zeros(1, 1, 1), torch.ones(1, 1, 1))
    other = Normal(torch.full((1, 1, 1), 2.0), torch.full((1, 1, 1), 2.0))
    assert float(unit.log_prob(torch.zeros(1, 1, 1))) == pytest.approx(-0.5 * math.log(2 * math.pi))
    assert float(unit.entropy()) == pytest.approx(0.5 * math.log(2 * math.pi * math.e))
    assert float(unit.kl(other)) == pytest.approx(math.log(2) + (1 + 4) / 8 - 0.5)


def test_path_of_a_linear_field_has_the_recursions_moments() -> None:
    """x' = (1 + a / K) x + sigma z: mean 0, var' = (1 + a / K)^2 var + sigma^2."""
    steps, slope, sigma, rows = 5, -1.5, 0.3, 50_000
    config = ChainConfig(name="reinflow", steps=steps, std_min=sigma, std_max=sigma, latent_clip=0, noise_clip=0)
    chain = build_chain(config, (1, 1), 0).double().requires_grad_(False)
    noise = torch.randn(steps + 1, rows, 1, 1, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    path = chain.sample(Field(lambda x, t: slope * x), nothing(rows), noise)
    variance = 1.0
    for k in range(steps + 1):
        # Standard error of a variance: sqrt(2 / n) of it.
        assert float(path.latents[k].var()) == pytest.approx(variance, rel=5 * math.sqrt(2 / rows))
        variance = (1 + slope / steps) ** 2 * variance + sigma**2


def test_latents_keep_what_was_scored_and_the_action_is_bounded() -> None:
    made = policy("reinflow", std_min=0.5, std_max=0.9)
    cond, path = roll(made, 200)
    assert path.latents[-1].abs().max() > 1
    torch.testing.assert_close(path.action, path.latents[-1].clamp(-1, 1))
    assert made.score(cond, path).log_prob.isfinite().all()


def test_noise_is_cut_at_its_bound() -> None:
    made = policy("reinflow", steps=1, noise_clip=0.5, dtype=torch.float64)
    cond, path = roll(made, 500)
    step = made.chain.transition(made.network, cond, path.latents[0], torch.zeros(500, dtype=torch.float64))
    z = (path.latents[1] - step.mean) / step.std
    assert z.abs().max() <= 0.5 + 1e-12
    assert (z.abs() > 0.5 - 1e-12).double().mean() == pytest.approx(math.erfc(0.5 / math.sqrt(2)), abs=0.04)
    assert path.latents[0].abs().max() > 2, "the start of the path is not cut"


@pytest.mark.parametrize(("shift", "bias"), [(0.1, -2.5e-5), (0.5, -8.4e-4)])
def test_the_documented_bias_of_the_cut_noise(shift: float, bias: float) -> None:
    """E[p_new / p_old] - 1 of a mean moved by `shift` standard deviations, noise cut at 3: docs/methods/reinflow.md."""
    rows, sigma = 100_001, 0.2
    config = ChainConfig(name="reinflow", steps=1, std_min=sigma, std_max=sigma, latent_clip=0, noise_clip=3)
    chain = build_chain(config, (1, 1), 0).double().requires_grad_(False)
    # Evenly spaced quantiles instead of draws: the mean is a quadrature.
    noise = Reference(0.0, 1.0).icdf((torch.arange(rows, dtype=torch.float64) + 0.5) / rows).view(1, -1, 1, 1)
    path = chain.sample(Field(lambda x, t: 0 * x), nothing(rows), torch.cat([torch.zeros_like(noise), noise]))
    moved = Field(lambda x, t: torch.full_like(x, shift * sigma))
    old, new = (chain.score(f, nothing(rows), path).log_prob[1] for f in (Field(lambda x, t: 0 * x), moved))
    assert float((new - old).exp().mean()) - 1 == pytest.approx(bias, rel=0.02)


def test_a_deterministic_chain_says_what_to_do() -> None:
    made = policy("euler")
    cond, path = roll(made, 2)
    assert not path.scored.any()
    with pytest.raises(ConfigError, match=r"'euler' is deterministic.*reinflow"):
        made.score(cond, path)


def test_a_deterministic_path_has_no_likelihood() -> None:
    made = policy("reinflow")
    cond = made.encode(observe(made, 2))
    path = made.sample(cond, made.draw_noise(2)[:1], deterministic=True)
    with pytest.raises(ConfigError, match="sampled deterministically"):
        made.score(cond, path)


def test_indexing_a_path_keeps_points() -> None:
    made = policy("gaussian")
    _, path = roll(made, 6)
    part = path[torch.tensor([4, 1])]
    assert isinstance(made.chain, nn.Module)
    torch.testing.assert_close(part.latents, path.latents[:, [4, 1]])
    torch.testing.assert_close(part.action, path.action[[4, 1]])
    assert part.scored.tolist() == [[False, False], [True, True]]
