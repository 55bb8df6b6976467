"""Search: candidates follow the chain's own law, and the best of M normals is as far out as the closed form says."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import OBS, Field, gaussian_field, nothing, observe, policy, robot

from robo_rlft.errors import ConfigError
from robo_rlft.policies import ChainConfig, Cond, Policy
from robo_rlft.policies.chains import build_chain
from robo_rlft.policies.chains.diffusion import cosine_schedule
from robo_rlft.policies.chunk_critic import ChunkCritic
from robo_rlft.policies.search import SVDD, BestOfN, choose

STOCHASTIC = ("reinflow", "gaussian", "flow_sde", "flow_noise", "shortcut", "mean_flow", "ddpm", "ddim")
LARGEST = {2: 1 / math.sqrt(math.pi), 5: 1.1629644736}
"""Expected maximum of so many standard normals."""


class Linear(ChunkCritic):
    """Q is the sum of the actions."""

    def forward(self, cond: Cond, action: Tensor) -> Tensor:
        del cond
        return action.flatten(1).sum(1)


def linear(made: Policy) -> Linear:
    return Linear(made.cond_width, made.event, [4])


def lively(made: Policy) -> ChunkCritic:
    torch.manual_seed(3)
    critic = ChunkCritic(made.cond_width, (2, made.event[1]), [16], members=3)
    with torch.no_grad():
        for net in critic.nets:
            assert isinstance(net, nn.Sequential)
            net[-1].weight.normal_()
    return critic


def scalar(chain: str, steps: int, velocity: float, std: float) -> Policy:
    """A chain of one number that moves by `velocity` in all and has the same noise at every step."""
    settings: dict[str, Any] = {"std_min": std, "std_max": std, "init_std": std, "latent_clip": 0.0, "noise_clip": 0.0}
    made = policy(chain, steps=steps, chunk=1, spec=robot(action=1), dtype=torch.float64, lively=0.0, **settings)
    made.network = Field(lambda x, t: torch.full_like(x, velocity))
    return made


def ends(search: SVDD | BestOfN, rows: int) -> Tensor:
    """Where paths end beyond where they began."""
    noise = search.draw_noise(rows, torch.Generator().manual_seed(0))
    cond = Cond(torch.zeros(rows, OBS, dtype=torch.float64))
    latents = search.sample(cond, noise).latents.detach()
    return (latents[-1] - latents[0]).flatten()


@pytest.mark.parametrize("count", [2, 5])
@pytest.mark.parametrize(("chain", "steps"), [("gaussian", 1), ("reinflow", 4)])
def test_the_best_of_normals_is_their_expected_maximum(chain: str, steps: int, count: int) -> None:
    """The value is linear in every candidate, so each step adds its std times the largest of M normals."""
    std, velocity, rows = 0.3, -0.2, 20_000
    made = scalar(chain, steps, velocity, std)
    moved = ends(SVDD(made, linear(made), count), rows)
    error = 4 * std * math.sqrt(steps / rows)
    assert float(moved.mean()) == pytest.approx(velocity + steps * std * LARGEST[count], abs=error)


@pytest.mark.parametrize("alpha", [0.15, 0.6])
def test_many_candidates_tilt_a_gaussian_as_the_closed_form_says(alpha: float) -> None:
    """N(m, s^2) exp(x / alpha) is N(m + s^2 / alpha, s^2)."""
    std, rows = 0.2, 4000
    made = scalar("gaussian", 1, 0.0, std)
    moved = ends(SVDD(made, linear(made), 400, alpha), rows)
    assert float(moved.mean()) == pytest.approx(std**2 / alpha, abs=0.02)
    assert float(moved.std()) == pytest.approx(std, rel=0.06)


def test_lots_fall_as_the_softmax_says() -> None:
    values, lots = torch.tensor([0.3, -0.2, 0.9, 0.1], dtype=torch.float64), 10_000
    u = (torch.arange(lots) + 0.5) / lots
    picked = choose(values[:, None].expand(4, lots), 0.4, u.double())
    share = torch.bincount(picked, minlength=4) / lots
    assert torch.allclose(share.double(), (values / 0.4).softmax(0), atol=2 / lots)
    assert choose(values[:, None].expand(4, 2), 0.0, u[:2].double()).tolist() == [2, 2]


@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("chain", STOCHASTIC)
def test_one_candidate_is_the_chains_own_sampling(chain: str, alpha: float) -> None:
    made = policy(chain, sde_steps="all") if chain == "flow_sde" else policy(chain)
    search = SVDD(made, lively(made), 1, alpha)
    cond, noise = made.encode(observe(made, 8)), search.draw_noise(8, torch.Generator().manual_seed(5))
    with torch.no_grad():
        own = made.sample(cond, noise[: made.noise_points])
        assert torch.equal(search.sample(search.encode(observe(made, 8)), noise).latents, own.latents)


def test_one_of_the_random_steps_becomes_all_of_them() -> None:
    one, every = policy("flow_sde", sde_steps="one"), policy("flow_sde", sde_steps="all")
    noise = SVDD(one, lively(one), 1).draw_noise(8, torch.Generator().manual_seed(5))
    with torch.no_grad():
        cond = one.encode(observe(one, 8))
        found = SVDD(one, lively(one), 1).sample(cond, noise).latents
        assert torch.equal(found, every.sample(cond, noise[: every.noise_points]).latents)


@pytest.mark.parametrize("chain", ["euler", "reinflow", "ddpm", "fpo"])
def test_the_best_of_one_is_the_policy_to_the_bit(chain: str) -> None:
    made = policy(chain)
    search = BestOfN(made, lively(made), 1)
    obs, noise = observe(made, 8), search.draw_noise(8)
    with torch.no_grad():
        own = made.sample(made.encode(obs), noise[:1], deterministic=True).action
        assert torch.equal(search.sample(search.encode(obs), noise, deterministic=True).action, own)


def test_the_best_of_n_has_the_largest_value_of_all() -> None:
    made = policy("euler")
    critic, obs = lively(made), observe(made, 6)
    search = BestOfN(made, critic, 5)
    noise, cond = search.draw_noise(6), made.encode(obs)
    with torch.no_grad():
        actions = [made.sample(cond, noise[i : i + 1], deterministic=True).action for i in range(5)]
        chosen = search.sample(cond, noise).action
        values = torch.stack([critic(cond, action) for action in actions])
        torch.testing.assert_close(critic(cond, chosen), values.amax(0))
    best = values.argmax(0)
    assert len(best.unique()) > 1
    for row, index in enumerate(best.tolist()):
        torch.testing.assert_close(chosen[row], actions[index][row])


def test_no_row_depends_on_its_neighbours() -> None:
    made = policy("reinflow").double()
    for search in (SVDD(made, lively(made).double(), 4, 0.5), BestOfN(made, lively(made).double(), 4)):
        obs, noise = observe(made, 6), search.draw_noise(6)
        with torch.no_grad():
            whole = search.sample(search.encode(obs), noise).action
            some = search.sample(search.encode({k: v[2:4] for k, v in obs.items()}), noise[:, 2:4]).action
        torch.testing.assert_close(whole[2:4], some)


class Rows:
    """Counts rows that go through modules."""

    def __init__(self, *modules: nn.Module) -> None:
        self.count = 0
        for module in modules:
            module.register_forward_hook(self.add)

    def add(self, module: nn.Module, given: Any, out: Tensor) -> None:
        del module, given
        self.count += len(out)


@pytest.mark.parametrize("chain", ["reinflow", "ddpm"])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("best_of", [False, True])
def test_the_calls_of_networks_are_those_that_happen(chain: str, count: int, best_of: bool) -> None:
    made = policy(chain)
    critic = lively(made)
    search = BestOfN(made, critic, count) if best_of else SVDD(made, critic, count)
    velocity, judged = Rows(made.network), Rows(critic)
    with torch.no_grad():
        search.sample(search.encode(observe(made, 7)), search.draw_noise(7))
    assert {"velocity": velocity.count / 7, "critic": judged.count / 7} == search.network_calls


def test_it_has_no_likelihood() -> None:
    made = policy("reinflow")
    for search in (SVDD(made, lively(made), 2), BestOfN(made, lively(made), 2)):
        cond = search.encode(observe(made, 4))
        path = search.sample(cond, search.draw_noise(4))
        with pytest.raises(ConfigError, match="without a likelihood"):
            search.score(cond, path)
        with pytest.raises(ConfigError, match="no likelihood"):
            made.score(cond, path)


def test_chains_that_offer_no_choice_are_refused() -> None:
    for chain in ("euler", "fpo"):
        with pytest.raises(ConfigError, match=rf"random steps, '{chain}' has none: use evaluate\.best_of"):
            SVDD(policy(chain), lively(policy(chain)), 4)
    with pytest.raises(ConfigError, match=r"'gaussian' does not: use evaluate\.candidates"):
        BestOfN(policy("gaussian"), lively(policy("gaussian")), 4)


def test_a_critic_says_its_mean_or_its_least_in_returns() -> None:
    made = policy("reinflow")
    critic = lively(made)
    critic.scale.set(torch.tensor([5.0]), torch.tensor([2.0]))
    cond, action = made.encode(observe(made, 3)), torch.randn(3, *made.event)
    with torch.no_grad():
        members = critic.members(cond, action)
        torch.testing.assert_close(critic(cond, action), 5 + 2 * members.mean(0))
        critic.aggregate = "min"
        torch.testing.assert_close(critic(cond, action), 5 + 2 * members.amin(0))
        # Only the executed two of four actions count, and only within the robot's bounds.
        action[:, 2:] += 1
        torch.testing.assert_close(critic(cond, action), 5 + 2 * members.amin(0))
        torch.testing.assert_close(critic(cond, 9 * action), critic(cond, (9 * action).clamp(-1, 1)))


def test_a_flow_expects_the_posterior_mean() -> None:
    """x + (1 - t) v is E[x_1 | x_t]: that of Gaussians, and of the noise that leads to one action."""
    chain = build_chain(ChainConfig(name="euler", latent_clip=0.0), (1, 1), 0)
    t, x = torch.full((5,), 0.4, dtype=torch.float64), torch.linspace(-2, 2, 5, dtype=torch.float64).view(5, 1, 1)
    gain = 0.4 * 0.3**2 / (0.4**2 * 0.3**2 + 0.6**2)
    expected = 0.7 + gain * (x - 0.4 * 0.7)
    torch.testing.assert_close(chain.predicted(gaussian_field(0.7, 0.3), nothing(5), x, t), expected)
    diffusion = build_chain(ChainConfig(name="ddpm", steps=4), (1, 1), 0)
    kept = cosine_schedule(4)[1]
    noise = Field(lambda x, t: (x - math.sqrt(kept) * 0.7) / math.sqrt(1 - kept))
    found = diffusion.predicted(noise, nothing(5), x, torch.full_like(t, diffusion.times[2]))
    torch.testing.assert_close(found, torch.full_like(x, 0.7))
