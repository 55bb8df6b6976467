"""Real-time chunking against its equations, written a second time: numpy for the prefix, autograd for guidance."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from robo_rlft.errors import ConfigError, SpecError
from robo_rlft.export.bundle import Extras, write_bundle
from robo_rlft.export.chunking import GuidedContinuation, guidance_gain, overlap_weights
from robo_rlft.export.client import PolicyProcess
from robo_rlft.export.manifest import read_manifest
from robo_rlft.export.runtime import Controller
from robo_rlft.policies import Policy
from robo_rlft.policies.condition import Cond

from .conftest import ROBOT, make_policy
from .test_weights import largest_error

P, H, A = 3, 4, 2


@pytest.fixture(scope="module")
def prefixed(policy: Policy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(
        policy, tmp_path_factory.mktemp("rtc") / "prefix", source={}, extras=Extras(rtc="prefix", prefix=P)
    )


@pytest.fixture(scope="module")
def guided(policy: Policy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(
        policy, tmp_path_factory.mktemp("rtc") / "guided", source={}, extras=Extras(rtc="guided", prefix=P)
    )


@pytest.fixture(params=["prefixed", "guided"])
def either(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


def draw(rows: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    rng = np.random.default_rng(rows)
    observation = {"policy": rng.normal(0, 2, (rows, 2, 3)).astype(np.float32)}
    noise = rng.standard_normal((rows, H, A), dtype=np.float32)
    return observation, noise, rng.uniform(-1.4, 1.4, (rows, P, A)).astype(np.float32)


def test_without_a_previous_chunk_it_is_the_policy_as_it_was(either: Path, exported: Path) -> None:
    observation, noise, prefix = draw(5)
    plain = Controller(exported).act(observation, noise)
    controller = Controller(either)
    np.testing.assert_allclose(controller.act(observation, noise), plain, atol=1e-5)
    np.testing.assert_allclose(controller.act(observation, noise, prefix=prefix, delay=-1), plain, atol=1e-5)


@pytest.mark.parametrize("delay", [0, 1, P])
def test_committed_actions_come_back_bit_for_bit(either: Path, delay: int) -> None:
    observation, noise, prefix = draw(4)
    action = Controller(either).act(observation, noise, prefix=prefix, delay=delay)
    np.testing.assert_array_equal(action[:, :delay], prefix[:, :delay])
    assert (action[:, delay:] != 0).all()


def test_numpy_inpaints_the_same_from_the_files_alone(prefixed: Path) -> None:
    assert largest_error(prefixed) < 1e-5
    delays = Controller(prefixed).golden["delay"][:, 0]
    assert {-1.0, 0.0, 1.0, 2.0, 3.0} == set(delays.tolist())


def reference(policy: Policy, observation: np.ndarray, noise: np.ndarray, prefix: np.ndarray, delay: int) -> np.ndarray:
    """Guidance in float64 with scalars for weights and gains, for one row."""
    policy = policy.double()
    weights = np.zeros(H)
    for i in range(P):
        c = (P - i) / (P - delay + 1)
        weights[i] = 1.0 if i < delay else c * (math.exp(c) - 1) / (math.e - 1)
    w = torch.from_numpy(weights if delay >= 0 else 0 * weights)[None, :, None]
    target = torch.zeros(1, H, A, dtype=torch.float64)
    target[0, :P] = policy.action_norm(torch.from_numpy(prefix).double())
    cond = policy.encode({"policy": torch.from_numpy(observation)[None].double()})
    x, steps = torch.from_numpy(noise)[None].double(), policy.chain.steps
    for k in range(steps):
        t = k / steps
        z = x.clone().requires_grad_()
        v = policy.network(z, torch.full((1,), t, dtype=torch.float64), Cond(cond.vector))
        clean = z + (1 - t) * v
        (pulled,) = torch.autograd.grad(clean, z, w * (target - clean.detach()))
        r2 = (1 - t) ** 2 / (t**2 + (1 - t) ** 2)
        gain = 5.0 if t == 0 else min(5.0, (1 - t) / (t * r2))
        x = (x + (v.detach() + gain * pulled) / steps).clamp(-1, 1)
    action = policy.to_robot(x)[0].detach().numpy().clip(ROBOT.action.low, ROBOT.action.high)
    action[: max(delay, 0)] = prefix[: max(delay, 0)]
    return action


@pytest.mark.parametrize("delay", [-1, 0, 2, P])
def test_guidance_is_that_of_its_equations(guided: Path, delay: int) -> None:
    observation, noise, prefix = draw(3)
    action = Controller(guided).act(observation, noise, prefix=prefix, delay=delay)
    double = make_policy()
    expected = np.stack([reference(double, observation["policy"][i], noise[i], prefix[i], delay) for i in range(3)])
    np.testing.assert_allclose(action, expected, atol=1e-5 * 8)


def test_guidance_draws_the_overlap_towards_the_previous_chunk(guided: Path, exported: Path) -> None:
    observation, noise, prefix = draw(64)
    plain = Controller(exported).act(observation, noise)
    drawn = Controller(guided).act(observation, noise, prefix=prefix, delay=1)
    before, after = (np.abs(x[:, 1:P] - prefix[:, 1:]).mean() for x in (plain, drawn))
    assert after < 0.8 * before


def test_weights_fall_over_the_overlap() -> None:
    weights = overlap_weights(torch.tensor([[1.0], [0.0], [-1.0]]), 3, torch.zeros(3, 5, 2))[..., 0]
    soft = [c * (math.exp(c) - 1) / (math.e - 1) for c in (2 / 3, 1 / 3)]
    np.testing.assert_allclose(weights[0], [1.0, *soft, 0, 0], rtol=1e-6)
    assert weights[1, 0] < 1
    assert not weights[2].any()


@pytest.mark.parametrize(("t", "gain"), [(0.0, 5.0), (0.1, 5.0), (0.5, 2.0), (0.75, (0.5625 + 0.0625) / 0.1875)])
def test_the_gain_is_bounded(t: float, gain: float) -> None:
    assert guidance_gain(t) == pytest.approx(gain)


def test_the_process_takes_the_previous_chunk_too(prefixed: Path) -> None:
    observation, noise, prefix = draw(2)
    with PolicyProcess(prefixed) as process:
        action = process.act(observation, noise, prefix=prefix, delay=2)
    np.testing.assert_array_equal(action, Controller(prefixed).act(observation, noise, prefix=prefix, delay=2))


def test_the_files_say_how_chunks_continue(guided: Path, prefixed: Path) -> None:
    assert read_manifest(guided).stage.rtc == "guided"
    assert read_manifest(guided).native is None
    assert read_manifest(prefixed).input_shapes()["prefix"] == (P, A)


@pytest.mark.parametrize("delay", [-2, P + 1])
def test_a_delay_out_of_range_is_refused(prefixed: Path, delay: int) -> None:
    observation, noise, prefix = draw(1)
    with pytest.raises(SpecError, match=f"delay {delay} must be between -1 and 3"):
        Controller(prefixed).act(observation, noise, prefix=prefix, delay=delay)


def test_what_a_plain_bundle_has_not_is_refused(exported: Path) -> None:
    observation, noise, prefix = draw(1)
    with pytest.raises(SpecError, match=r"no real-time chunking.*export\.rtc"):
        Controller(exported).act(observation, noise, prefix=prefix, delay=1)


@pytest.mark.parametrize(
    ("network", "chain", "rtc", "prefix", "message"),
    [
        ("mlp", "gaussian", "prefix", 1, "needs a plain flow"),
        ("mlp", "ddim", "guided", 1, "needs a plain flow"),
        ("unet1d", "euler", "guided", 1, r"export\.rtc=prefix"),
        ("mlp", "euler", "prefix", H, r"has 4 actions, expected 1 to 3.*export\.execute"),
        ("mlp", "euler", "prefix", -1, "has -1 actions, expected 1 to 3"),
    ],
)
def test_policies_that_cannot_continue_are_refused(
    network: str, chain: str, rtc: str, prefix: int, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        write_bundle(
            make_policy(network, chain, 1), tmp_path / "bundle", source={}, extras=Extras(rtc=rtc, prefix=prefix)
        )


@pytest.mark.slow
def test_a_transformer_is_guided_too() -> None:
    """Its fused attention has no gradient in ONNX, so it is traced without."""
    from robo_rlft.export.graph import to_onnx

    assert to_onnx(GuidedContinuation(make_policy("transformer", "euler", 2), P))
