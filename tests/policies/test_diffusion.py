"""DDPM and DDIM against closed forms, and against the schedulers of `diffusers` where that is installed."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from toys import Field, nothing, observe, policy, roll

from robo_rlft.errors import ConfigError
from robo_rlft.policies import ChainConfig
from robo_rlft.policies.chains import build_chain
from robo_rlft.policies.chains.diffusion import Diffusion


def chain(name: str, steps: int, **settings: Any) -> Diffusion:
    made = build_chain(ChainConfig(name=name, steps=steps, **settings), (2, 3), 0)
    assert isinstance(made, Diffusion)
    return made


@pytest.mark.parametrize(("name", "steps", "levels"), [("ddpm", 20, 0), ("ddim", 5, 20), ("ddim", 20, 0)])
def test_the_steps_of_diffusers(name: str, steps: int, levels: int) -> None:
    """The same mean and standard deviation as the library's scheduler, from a fixed prediction of the noise."""
    schedulers = pytest.importorskip("diffusers.schedulers")
    common = {"num_train_timesteps": levels or steps, "beta_schedule": "squaredcos_cap_v2", "clip_sample": True}
    scheduler = schedulers.DDPMScheduler(**common) if name == "ddpm" else schedulers.DDIMScheduler(**common)
    scheduler.set_timesteps(steps)
    made = chain(name, steps, levels=levels, sample_std_min=1e-9, score_std_min=1e-9)
    generator = torch.Generator().manual_seed(0)
    options = {} if name == "ddpm" else {"use_clipped_model_output": True}
    for k, level in enumerate(scheduler.timesteps.tolist()):
        x, noise = torch.randn(2, 4, 2, 3, generator=generator)
        network = Field(lambda x, t, noise=noise: noise)
        step = made.transition(network, nothing(4, torch.float32), x, torch.full((4,), made.times[k]))
        variance = float(scheduler._get_variance(level, *([] if name == "ddpm" else [level - made.stride])))
        if name == "ddpm":
            theirs = scheduler.step(noise, level, x, generator=torch.Generator().manual_seed(k))
            drawn = torch.randn(x.shape, generator=torch.Generator().manual_seed(k))
            mean = theirs.prev_sample - (drawn * variance**0.5 if level else 0.0)
        else:
            zero = torch.zeros_like(x)
            mean = scheduler.step(noise, level, x, eta=1.0, variance_noise=zero, **options).prev_sample
        torch.testing.assert_close(step.mean, mean, rtol=0, atol=2e-5)
        if level:
            torch.testing.assert_close(step.std, torch.full_like(x, variance**0.5), rtol=1e-4, atol=1e-6)


def test_the_exact_noise_of_a_point_leads_to_it() -> None:
    """With eps = (x - sqrt(abar) a) / sqrt(1 - abar) the predicted action is a at every step, and so is the end."""
    for name, levels in (("ddpm", 0), ("ddim", 40)):
        made = chain(name, 10, levels=levels)
        target = torch.linspace(-0.9, 0.9, 6, dtype=torch.float64).view(1, 2, 3)

        def exact(x: torch.Tensor, t: torch.Tensor, made: Diffusion = made, a: torch.Tensor = target) -> torch.Tensor:
            kept = x.new_tensor(made.kept)[(made.levels - 1 - t * made.levels).round().long()]
            return (x - kept.sqrt() * a) / (1 - kept).sqrt()

        noise = torch.randn(1, 4, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        end = made.sample(Field(exact), nothing(4), noise, deterministic=True).latents[-1]
        torch.testing.assert_close(end, target.expand(4, -1, -1), rtol=0, atol=1e-9)


def test_schedule_is_cosine() -> None:
    kept = chain("ddpm", 20).kept
    # cos^2((.5 + s) / (1 + s) pi / 2) / cos^2(s / (1 + s) pi / 2) with s = .008, halfway.
    assert kept[9] == pytest.approx(0.4938, abs=1e-3)
    assert kept[0] > 0.98
    assert kept[-1] < 1e-4
    assert all(a > b for a, b in pairwise(kept))


def test_levels_meet_their_times() -> None:
    assert chain("ddpm", 4).times == [0.0, 0.25, 0.5, 0.75]
    assert chain("ddim", 2, levels=8).times == [0.375, 0.875]


def test_cloning_predicts_the_noise_of_the_level() -> None:
    made = policy("ddpm", steps=4, dtype=torch.float64)
    seen = []
    network = Field(lambda x, t: seen.append((x, t)) or torch.zeros_like(x))
    data, noise = made.draw_noise(3)[:2, :3]
    t = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    error = made.chain.cloning_error(network, nothing(3), data, noise, t, t)
    torch.testing.assert_close(error, -noise)
    x, times = seen[0]
    assert times.flatten().tolist() == [0.0, 0.25, 0.75]
    assert isinstance(made.chain, Diffusion)
    for row, kept in enumerate((made.chain.kept[3], made.chain.kept[2], made.chain.kept[0])):
        torch.testing.assert_close(x[row], kept**0.5 * data[row] + (1 - kept) ** 0.5 * noise[row])


def test_only_the_last_steps_are_scored_but_all_are_random() -> None:
    made = policy("ddpm", steps=5, trained_steps=2, dtype=torch.float64)
    _, path = roll(made, 7)
    assert path.scored.all(1).tolist() == [False] * 4 + [True] * 2
    mean = made.sample(made.encode(observe(made, 7)), path.latents[:1], deterministic=True)
    assert (path.latents[1] - mean.latents[1]).abs().min() > 0


def test_floors_of_sampling_and_likelihood_are_apart() -> None:
    made = policy("ddpm", steps=4, sample_std_min=0.03, score_std_min=0.2, dtype=torch.float64)
    cond, path = roll(made, 4000)
    last = made.chain.transition(made.network, cond, path.latents[3], torch.full((4000,), 0.75, dtype=torch.float64))
    assert (last.std == 0.2).all()
    assert float((path.latents[4] - last.mean).detach().std()) == pytest.approx(0.03, rel=0.05)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "ddpm", "steps": 5, "levels": 20}, r"steps=5 but policy.chain.levels=20; choose ddim"),
        ({"name": "ddim", "steps": 3, "levels": 20}, r"steps=3 does not divide the 20 noise levels"),
        ({"name": "ddpm", "steps": 5, "trained_steps": 6}, r"trained_steps=6 exceeds policy.chain.steps=5"),
    ],
)
def test_settings_that_do_not_fit_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_chain(ChainConfig(**settings), (2, 3), 0)
