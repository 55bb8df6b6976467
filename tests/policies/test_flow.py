"""The deterministic flow against fields whose solution is known."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from toys import Field, clone_modes, gaussian_field, mixture_field, nothing, policy, robot

from robo_rlft.policies import ChainConfig, Policy
from robo_rlft.policies.chains import build_chain
from robo_rlft.policies.chains.base import Chain

MODES, WIDTH = (-0.5, 0.5), 0.1
"""Two modes five standard deviations away from the middle."""


def euler(steps: int) -> Chain:
    return build_chain(ChainConfig(name="euler", steps=steps, latent_clip=0.0), (1, 1), 0)


def flow(field: Field, start: Tensor, steps: int) -> Tensor:
    """Where the chain takes each starting value, [N] -> [N]."""
    return euler(steps).sample(field, nothing(len(start)), start.view(1, -1, 1, 1)).latents[-1].flatten()


@pytest.mark.parametrize(
    ("field", "solution"),
    [
        (Field(lambda x, t: -2.0 * x), lambda x: x * math.exp(-2)),
        (Field(lambda x, t: x + 3 * t), lambda x: x * math.e + 3 * (math.e - 2)),
        (gaussian_field(0.4, 0.3), lambda x: 0.4 + 0.3 * x),
    ],
    ids=["decay", "driven", "gaussian"],
)
def test_euler_converges_with_order_one(field: Field, solution) -> None:
    start = torch.linspace(-2, 2, 9, dtype=torch.float64)
    errors = [float((flow(field, start, k) - solution(start)).abs().max()) for k in (200, 400, 800)]
    assert errors[-1] < 0.01
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(1.0, abs=0.03)


def test_euler_in_numbers() -> None:
    """x' = a x: x_K = (1 + a / K)^K x_0, from t = 0 up."""
    assert float(flow(Field(lambda x, t: 2 * x), torch.ones(1, dtype=torch.float64), 4)) == pytest.approx(1.5**4)
    assert float(flow(Field(lambda x, t: t + 0 * x), torch.zeros(1, dtype=torch.float64), 4)) == pytest.approx(0.375)


def mixture_density(x: Tensor) -> Tensor:
    parts = [torch.distributions.Normal(m, WIDTH).log_prob(x).exp() for m in MODES]
    return sum(parts, torch.zeros_like(x)) / len(parts)


def pushed_density(field: Field, start: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """The flow's end points and the density there by d log p / dt = -tr(dv/dx), the trace by differentiation.

    One Euler step is the map x -> x + v / K; with log(1 + tr / K) for the trace the density is exact for the chain.
    """
    log_density = torch.distributions.Normal(0.0, 1.0).log_prob(start)
    x, cond = start.view(-1, 1, 1), nothing(len(start), start.dtype)
    for k in range(steps):
        t = torch.full((len(start),), k / steps, dtype=start.dtype)
        x = x.detach().requires_grad_()
        velocity = field(x, t, cond)
        (trace,) = torch.autograd.grad(velocity.sum(), x)
        log_density = log_density - torch.log1p(trace.flatten() / steps)
        x = x + velocity / steps
    return x.detach().flatten(), log_density.detach().exp()


def test_density_of_the_exact_field_is_the_mixtures() -> None:
    start = torch.linspace(-2.5, 2.5, 41, dtype=torch.float64)
    end, density = pushed_density(mixture_field(MODES, WIDTH), start, 400)
    torch.testing.assert_close(end, flow(mixture_field(MODES, WIDTH), start, 400))
    truth = mixture_density(end)
    inside = truth > 0.05
    assert inside.sum() > 30
    assert ((density - truth) / truth)[inside].abs().max() < 0.06


@pytest.fixture(scope="module")
def trained() -> Policy:
    """A small flow policy trained on the two modes."""
    made = policy("euler", steps=100, chunk=1, spec=robot(1, 1), hidden=(128, 128), latent_clip=0.0)
    clone_modes(made, MODES, WIDTH)
    return made


def learned_field(made: Policy) -> Field:
    """The trained velocity as a field of (x, t)."""

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        cond = made.encode({"policy": torch.zeros(len(x), 1, 1)})
        return made.network(x.float(), t.flatten().float(), cond).to(x.dtype)

    return Field(velocity)


@pytest.mark.slow
def test_a_trained_flow_recovers_both_modes(trained: Policy) -> None:
    rows = 8000
    obs = {"policy": torch.zeros(rows, 1, 1)}
    with torch.no_grad():
        action = trained.action_norm(trained.act(obs, torch.Generator().manual_seed(7))).flatten()
    right = action > 0
    assert float(right.float().mean()) == pytest.approx(0.5, abs=0.04)
    for part, mode in ((action[~right], MODES[0]), (action[right], MODES[1])):
        assert float(part.median()) == pytest.approx(mode, abs=0.03)
        assert float(part.quantile(0.84) - part.quantile(0.16)) == pytest.approx(2 * WIDTH, rel=0.25)
    assert float((action.abs() < 0.15).float().mean()) < 0.03, "almost nothing between the modes"


@pytest.mark.slow
def test_density_of_the_trained_flow_agrees_with_the_truth(trained: Policy) -> None:
    """KL(flow || truth) by change of variables, over the quantiles of the starting noise."""
    quantiles = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
    start = torch.distributions.Normal(0.0, 1.0).icdf(quantiles)
    end, density = pushed_density(learned_field(trained), start, 200)
    mass = torch.trapezoid(density[end.argsort()], end.sort().values)
    assert float(mass) == pytest.approx(1.0, abs=0.03), "a density integrates to 1"
    core = (end.abs() - MODES[1]).abs() < 2 * WIDTH
    assert core.double().mean() > 0.9
    ratio = (density / mixture_density(end)).log()[core]
    assert float(ratio.mean().abs()) < 0.1
    assert float(ratio.abs().median()) < 0.25
