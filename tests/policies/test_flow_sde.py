"""Flow-SDE: the closed-form recursion of its own chain, the data's moments in the limit, and one random step."""

from __future__ import annotations

import math

import pytest
import torch
from toys import gaussian_field, nothing, observe, policy

from robo_rlft.policies import ChainConfig
from robo_rlft.policies.chains import Chain, build_chain

MEAN, STD = 0.4, 0.3


def chain(steps: int, which: str = "all") -> Chain:
    config = ChainConfig(name="flow_sde", steps=steps, sde_steps=which, latent_clip=0.0, noise_clip=0.0)
    return build_chain(config, (1, 1), 0)


def recursion(steps: int, a: float = 0.5) -> tuple[float, float]:
    """Mean and std at the end of x' = x + d (v - s^2 / (2 (1 - t)) (x - t v)) + s sqrt(d) z with v linear in x."""
    mean, variance, d = 0.0, 1.0, 1 / steps
    for k in range(steps):
        t = k / steps
        gain = (t * STD**2 - (1 - t)) / (t**2 * STD**2 + (1 - t) ** 2)
        offset = MEAN - gain * t * MEAN
        s2 = a**2 * (1 - t) / max(t, d)
        pull = s2 / (2 * (1 - t))
        slope = 1 + d * (gain - pull * (1 - t * gain))
        mean = slope * mean + d * (1 + pull * t) * offset
        variance = slope**2 * variance + s2 * d
    return mean, math.sqrt(variance)


def test_noise_of_four_steps() -> None:
    """The published example: K = 4, a = .5."""
    made, x = chain(4), torch.zeros(4, 1, 1, dtype=torch.float64)
    step = made.transition(gaussian_field(MEAN, STD), nothing(4), x, torch.arange(4).double() / 4)
    assert step.std.flatten().tolist() == pytest.approx([0.5, 0.433013, 0.25, 0.144338], abs=1e-6)


def test_moments_of_four_steps_are_the_recursions() -> None:
    rows = 200_000
    noise = torch.randn(5, rows, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    end = chain(4).sample(gaussian_field(MEAN, STD), nothing(rows), noise).latents[-1]
    mean, std = recursion(4)
    assert float(end.mean()) == pytest.approx(mean, abs=5 * std / math.sqrt(rows))
    assert float(end.std()) == pytest.approx(std, rel=5 / math.sqrt(2 * rows))
    assert std == pytest.approx(0.24, abs=0.005), (
        "narrower than the data: the chain keeps the flow's marginals only ..."
    )


def test_many_steps_keep_the_datas_moments() -> None:
    """... in the limit of many steps."""
    made, x = chain(1000), torch.tensor([0.0, 1.0], dtype=torch.float64).view(2, 1, 1)
    mean, variance = 0.0, 1.0
    for k in range(1000):
        # The transition is affine in x: two points give it.
        t = torch.full((2,), k / 1000, dtype=torch.float64)
        step = made.transition(gaussian_field(MEAN, STD), nothing(2), x, t)
        low, high = step.mean.flatten().tolist()
        mean, variance = low + (high - low) * mean, (high - low) ** 2 * variance + float(step.std[0]) ** 2
    assert (mean, math.sqrt(variance)) == pytest.approx(recursion(1000), abs=1e-9)
    assert mean == pytest.approx(MEAN, abs=2e-3)
    assert math.sqrt(variance) == pytest.approx(STD, rel=5e-3)


def test_one_step_of_each_path_is_random_and_every_step_is_chosen_alike() -> None:
    made, flow = policy("flow_sde", dtype=torch.float64), policy("euler", dtype=torch.float64)
    flow.network.load_state_dict(made.network.state_dict())
    rows = 4000
    with torch.no_grad():
        cond, noise = made.encode(observe(made, rows)), made.draw_noise(rows, torch.Generator().manual_seed(1))
        path, straight = made.sample(cond, noise), flow.sample(cond, noise)
    assert (path.scored.sum(0) == 1).all()
    assert not path.scored[0].any()
    assert path.scored[1:].double().mean(1).tolist() == pytest.approx([0.25] * 4, abs=0.03)
    for k in range(4):
        later = path.scored[k + 1 :].any(0)
        assert torch.equal(path.latents[k, later], straight.latents[k, later]), "Euler's method before the random step"
    last = path.scored[1]
    x = path.latents[3, last]
    step = flow.chain.drift(flow.network, cond[last], x, torch.full((len(x),), 0.75, dtype=torch.float64))
    torch.testing.assert_close(path.latents[4, last], step, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["flow_sde", "flow_noise", "fpo", "reinflow"])
def test_without_noise_every_flow_is_euler(name: str) -> None:
    made, flow = policy(name), policy("euler")
    flow.network.load_state_dict(made.network.state_dict())
    cond, noise = made.encode(observe(made, 6)), made.draw_noise(6)
    torch.testing.assert_close(made.sample(cond, noise[:1], True).latents, flow.sample(cond, noise[:1]).latents)
