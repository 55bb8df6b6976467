"""Shortcut models and mean flows: their targets by hand, and two modes recovered in 1, 2 and 4 steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import NETWORKS, clone_modes, nothing, policy, robot

from robo_rlft.errors import ConfigError
from robo_rlft.policies import Cond, Policy
from robo_rlft.policies.networks.layers import sinusoid

MODES, WIDTH = (-0.5, 0.5), 0.1


class Spanned(nn.Module):
    """A velocity as a function of (x, t, span); the span is read from its features, of which it has only seen these."""

    def __init__(self, velocity: Any, spans: tuple[float, ...]) -> None:
        super().__init__()
        self.velocity, self.spans = velocity, spans

    def forward(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        known = torch.tensor(self.spans, dtype=x.dtype)
        nearest = torch.cdist(cond.vector[:, -16:], sinusoid(known, 16)).argmin(1)
        return self.velocity(x, t[:, None, None], known[nearest][:, None, None])


def test_shortcut_targets_by_hand() -> None:
    """s(x, t, d) = x + 10 t + 100 d; finest = 4: rows of u < .5 learn a step of 1 from two of .5, others .5 from 0."""
    made = policy("shortcut", chunk=1, spec=robot(1, 1), dtype=torch.float64, finest=4, span_share=0.5)
    network = Spanned(lambda x, t, d: x + 10 * t + 100 * d, (0.0, 0.25, 0.5, 1.0))
    noise = torch.zeros(4, 1, 1, dtype=torch.float64)
    t = torch.tensor([0.9, 0.6, 0.9, 0.3], dtype=torch.float64)
    u = torch.tensor([0.2, 0.7, 0.0, 0.0], dtype=torch.float64)
    error = made.chain.cloning_error(network, nothing(4), noise + 2.0, noise, t, u).flatten()
    # Row 0: from x = 0 at t = 0. First half step: 50; then x = 25, t = .5: 25 + 5 + 50 = 80. Mean 65, prediction 100.
    # Row 1: from x = 1 at t = .5, halves told 0: 6, then x = 2.5, t = .75: 10. Mean 8, prediction 1 + 5 + 50.
    # Rows 2, 3: flow matching, x + 10 t - 2.
    assert error.tolist() == pytest.approx([100 - 65, 56 - 8, 1.8 + 9 - 2, 0.6 + 3 - 2])


def test_shortcut_targets_have_no_gradient() -> None:
    made = policy("shortcut", dtype=torch.float64, span_share=1.0)
    data, noise = made.draw_noise(2)[:2]
    cond = Cond(torch.randn(2, 3, dtype=torch.float64))
    t = u = torch.full((2,), 0.4, dtype=torch.float64)
    error = made.chain.cloning_error(made.network, cond, data, noise, t, u)
    (slope,) = torch.autograd.grad(error.sum(), [list(made.network.parameters())[-1]])
    # The last bias adds 1 to each prediction, and would add nothing to a difference with its own target.
    assert slope.tolist() == pytest.approx([2.0] * 8)


@pytest.mark.parametrize("network", NETWORKS)
def test_mean_flow_target_by_finite_differences(network: str) -> None:
    """v + (r - t) du/dt along the straight line, r held."""
    made = policy("mean_flow", network, dtype=torch.float64, span_share=1.0, adaptive_power=0.0)
    data, noise = made.draw_noise(2, torch.Generator().manual_seed(3))[:2]
    cond = Cond(torch.randn(2, 3, dtype=torch.float64))
    t, r = torch.tensor([[0.2, 0.8], [0.7, 0.3]], dtype=torch.float64)
    error = made.chain.cloning_error(made.network, cond, data, noise, t, r)
    start, end = torch.minimum(t, r), torch.maximum(t, r)

    def mean_velocity(shift: float) -> Tensor:
        now = start + shift
        w = now[:, None, None]
        told = Cond(torch.cat([cond.vector, sinusoid(end - now, 16, shortest=4.0)], dim=1))
        return made.network((1 - w) * noise + w * data, now, told)

    slope = (mean_velocity(1e-7) - mean_velocity(-1e-7)) / 2e-7
    target = data - noise + (end - start)[:, None, None] * slope
    torch.testing.assert_close(error, mean_velocity(0.0) - target, rtol=1e-6, atol=1e-6)


def test_the_exact_mean_velocity_of_a_gaussian_has_the_flows_average_error() -> None:
    """u = (x_r - x_t) / (r - t) on the flow's own path; averaged over the noise the target is u itself."""
    mean, std, rows = 0.4, 0.3, 400_000
    made = policy("mean_flow", chunk=1, spec=robot(1, 1), dtype=torch.float64, span_share=1.0, adaptive_power=0.0)

    def scale(t: Tensor) -> Tensor:
        return (t**2 * std**2 + (1 - t) ** 2).sqrt()

    class Exact(nn.Module):
        def forward(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
            # t = .25, r = .75, and what the network is told changes with t as r - t does.
            t = t[:, None, None]
            r = torch.full_like(t, 0.75)
            return ((x - t * mean) / scale(t) * scale(r) + r * mean - x) / (r - t)

    generator = torch.Generator().manual_seed(0)
    noise, draw = torch.randn(2, rows, 1, 1, generator=generator, dtype=torch.float64)
    t = torch.full((rows,), 0.25, dtype=torch.float64)
    data = mean + std * draw
    error = made.chain.cloning_error(Exact(), nothing(rows), data, noise, t, t + 0.5).flatten()
    x = (0.75 * noise + 0.25 * data).flatten()
    for values in (error, error * x):
        assert abs(float(values.mean())) < 5 * float(values.std()) / rows**0.5


def test_the_weight_of_a_row_is_that_of_its_error() -> None:
    plain, weighted = (policy("mean_flow", dtype=torch.float64, adaptive_power=p) for p in (0.0, 1.0))
    data, noise = plain.draw_noise(5, torch.Generator().manual_seed(3))[:2]
    cond, t = Cond(torch.randn(5, 3, dtype=torch.float64)), torch.linspace(0, 1, 5, dtype=torch.float64)
    error, other = (m.chain.cloning_error(m.network, cond, data, noise, t, 1 - t) for m in (plain, weighted))
    size = error.square().mean(dim=(1, 2), keepdim=True)
    torch.testing.assert_close(other, error / (size + 1e-3).sqrt())


def cloned(chain: str) -> Policy:
    made = policy(chain, steps=4, chunk=1, spec=robot(1, 1), hidden=(128, 128), latent_clip=0.0, lively=0.0)
    clone_modes(made, MODES, WIDTH, updates=3000)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("chain", ["shortcut", "mean_flow"])
def test_two_modes_in_one_two_and_four_steps(chain: str) -> None:
    made, rows = cloned(chain), 8000
    for steps in (1, 2, 4):
        few = policy(chain, steps=steps, chunk=1, spec=robot(1, 1), hidden=(128, 128), latent_clip=0.0)
        few.load_state_dict(made.state_dict())
        with torch.no_grad():
            action = few.act({"policy": torch.zeros(rows, 1, 1)}, torch.Generator().manual_seed(7))
        action = few.action_norm(action).flatten()
        right = action > 0
        assert float(right.float().mean()) == pytest.approx(0.5, abs=0.06), steps
        for part, mode in ((action[~right], MODES[0]), (action[right], MODES[1])):
            assert float(part.median()) == pytest.approx(mode, abs=0.08), steps
        assert float((action.abs() < 0.15).float().mean()) < 0.1, f"{steps} steps leave mass between the modes"


def test_a_finest_step_that_is_no_power_of_two_is_named() -> None:
    with pytest.raises(ConfigError, match=r"finest=12 is no power of two"):
        policy("shortcut", finest=12)
