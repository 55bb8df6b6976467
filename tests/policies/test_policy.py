"""The policy as a whole: observations in, chunks of actions out, one row never seeing another."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from toys import CHAINS, NETWORKS, observe, policy, robot, roll

from robo_rlft.errors import ConfigError, SpecError
from robo_rlft.policies import ChainConfig, Cond, Critic, NetworkConfig, Policy, PolicyConfig
from robo_rlft.policies.networks.layers import sinusoid
from robo_rlft.spec import ArraySpec, RobotSpec


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("chunk", [2, 5, 8])
def test_velocity_reads_chunk_time_and_condition(network: str, chunk: int) -> None:
    made = policy("euler", network, chunk=chunk, dtype=torch.float64)
    cond = made.encode(observe(made, 2))
    x = made.draw_noise(2)[0]
    t = torch.full((2,), 0.25, dtype=torch.float64)
    base = made.network(x, t, cond)
    assert base.shape == x.shape
    moved = x.clone()
    moved[:, 0, 0] += 0.5
    for other in (
        made.network(moved, t, cond),
        made.network(x, t + 0.25, cond),
        made.network(x, t, Cond(-cond.vector)),
    ):
        assert (other - base).abs().max() > 1e-4
    # The whole chunk matters to each of its actions.
    assert (made.network(moved, t, cond) - base)[:, -1].abs().max() > 1e-8


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("chain", ["euler", *CHAINS])
def test_rows_are_independent(chain: str, network: str) -> None:
    made = policy(chain, network, dtype=torch.float64)
    obs, noise = observe(made, 6), made.draw_noise(6)
    whole = made.sample(made.encode(obs), noise)
    rows = torch.tensor([5, 2])
    part = made.sample(made.encode({"policy": obs["policy"][rows]}), noise[:, rows])
    torch.testing.assert_close(part.latents, whole.latents[:, rows], rtol=0, atol=1e-12)
    torch.testing.assert_close(part.action, whole.action[rows], rtol=0, atol=1e-12)


def test_condition_indexing_and_repetition() -> None:
    cond = Cond(torch.arange(6.0).view(3, 2).requires_grad_())
    assert len(cond) == 3
    assert cond[torch.tensor([2, 0])].vector.tolist() == [[4, 5], [0, 1]]
    assert cond[1:].vector.tolist() == [[2, 3], [4, 5]]
    assert cond.repeat(2).vector.tolist() == [[0, 1], [2, 3], [4, 5], [0, 1], [2, 3], [4, 5]]
    assert cond.repeat(1) is cond
    assert cond.vector.requires_grad
    assert not cond.detach().vector.requires_grad


def test_history_is_flattened_newest_last() -> None:
    made = policy(obs_horizon=2)
    obs = {"policy": torch.tensor([[[1.0, 2, 3], [4, 5, -4]]])}
    assert made.encode(obs).vector.tolist() == [[1, 2, 3, 4, 5, -4]]


def test_observations_are_normalised_and_clipped_inside() -> None:
    made = policy()
    made.fit_normaliser({"policy": {"min": np.array([0.0, 0, 0]), "max": np.array([2.0, 4, 8])}})
    assert made.encode({"policy": torch.tensor([[[2.0, 0, 1e9]]])}).vector.tolist() == [[1, -1, 5]]


def test_actions_come_in_the_robots_units() -> None:
    made = policy()
    low, high = made.to_robot(torch.full((2,), -1.0)), made.to_robot(torch.full((2,), 1.0))
    assert low.tolist() == [-2, -2]
    assert high.tolist() == [4, 4]
    action = made.act(observe(made, 50), deterministic=False)
    assert action.shape == (50, 4, 2)
    assert action.min() >= -2
    assert action.max() <= 4


def test_the_same_generator_gives_the_same_actions() -> None:
    made, obs = policy(), observe(policy(), 3)
    first, second, other = (made.act(obs, torch.Generator().manual_seed(s), deterministic=False) for s in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_everything_needed_travels_in_the_state_dict() -> None:
    made = policy()
    made.fit_normaliser({"policy": {"min": np.zeros(3), "max": np.full(3, 9.0)}})
    torch.manual_seed(99)
    other = Policy(made.config, made.robot)
    other.load_state_dict(copy.deepcopy(made.state_dict()))
    obs = observe(made, 3)
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    assert torch.equal(made.act(obs, generators[0], False), other.act(obs, generators[1], False))


def test_gaussian_policy_starts_near_zero_with_its_initial_std() -> None:
    config = PolicyConfig(chain=ChainConfig(name="gaussian", steps=7, init_std=0.4, noise_clip=0.0), chunk=1, execute=1)
    made = Policy(replace(config, action_normaliser="none"), robot())
    assert made.chain.steps == 1
    _, path = roll(made, 20_000)
    assert float(path.latents[1].mean()) == pytest.approx(0.0, abs=0.02)
    assert float(path.latents[1].std()) == pytest.approx(0.4, rel=0.02)


def test_critic_prefers_its_own_group() -> None:
    plain, privileged = Critic(robot(), [8]), Critic(robot(critic=5), [8])
    assert (plain.key, privileged.key) == ("policy", "critic")
    assert privileged({"critic": torch.zeros(4, 5), "policy": torch.zeros(4, 3)}).shape == (4,)


def test_sinusoid_tells_times_apart() -> None:
    t = torch.linspace(0, 1, 21, dtype=torch.float64)
    features = sinusoid(t, 16)
    assert features.shape == (21, 16)
    assert features.abs().max() <= 1
    assert torch.cdist(features, features)[~torch.eye(21, dtype=torch.bool)].min() > 0.05
    periods = 2 * torch.pi / torch.exp(torch.linspace(0, 1, 8) * torch.tensor(1e4).log()) * 1000 / (2 * torch.pi)
    torch.testing.assert_close(features[7, :8], torch.sin(2 * torch.pi * t[7] / periods.double()), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"execute": 5}, r"policy.execute 5 must be between 1 and policy.chunk 4"),
        ({"execute": 0}, r"policy.execute 0 must be"),
        ({"chain": ChainConfig(name="reinflo")}, r"unknown chain 'reinflo': did you mean .*reinflow"),
        ({"chain": ChainConfig(steps=0)}, r"policy.chain.steps is 0: at least 1"),
        ({"network": NetworkConfig(name="unet")}, r"unknown network 'unet': did you mean unet1d"),
        ({"network": NetworkConfig(name="transformer", width=10, heads=4)}, r"width 10 is no multiple of .*heads 4"),
        (
            {"network": NetworkConfig(name="unet1d", depth=4)},
            r"chunk 4 is too short for a U-Net of depth 4: at least 8",
        ),
    ],
)
def test_contradicting_settings_are_named(change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Policy(replace(PolicyConfig(), **change), robot())


def test_wrong_observations_are_named() -> None:
    made = policy()
    with pytest.raises(SpecError, match=r"reads observation 'policy', got only \['state'\]"):
        made.encode({"state": torch.zeros(1, 1, 3)})
    with pytest.raises(SpecError, match=r"'policy': expected \[N, 1, 3\], got \[2, 3\]"):
        made.encode({"policy": torch.zeros(2, 3)})
    with pytest.raises(SpecError, match=r"policy.obs_keys names 'state', Toy offers \['policy'\]"):
        Policy(PolicyConfig(obs_keys=["state"]), robot())


def test_maps_that_are_no_images_are_refused_by_name() -> None:
    camera = RobotSpec("Toy", {"depth": ArraySpec((8, 8))}, ArraySpec((2,)), 20.0, 100)
    with pytest.raises(SpecError, match=r"'depth' has shape \[8, 8\]: policies read vectors"):
        Policy(PolicyConfig(obs_keys=["depth"]), camera)
