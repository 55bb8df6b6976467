"""Bundles of a residual policy: two stages, each exactly as torch computes it, and refused when they are damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import yaml

from robo_rlft.envs import make
from robo_rlft.errors import BundleError, SpecError
from robo_rlft.export.bundle import write_bundle
from robo_rlft.export.client import PolicyProcess
from robo_rlft.export.manifest import BASE_ACTION, PHASE, read_manifest, to_yaml
from robo_rlft.export.run import for_bundle, run
from robo_rlft.export.runtime import Controller
from robo_rlft.policies import Policy
from robo_rlft.policies.residual import ResidualPolicy, residual_robot
from robo_rlft.training.config import ResidualConfig
from robo_rlft.training.evaluate import evaluate_policy
from tests.export.conftest import ROBOT, make_residual, reseal
from tests.training.loops import settings


@pytest.fixture(scope="module")
def residual() -> ResidualPolicy:
    return make_residual()


@pytest.fixture(scope="module")
def bundle(residual: ResidualPolicy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(residual, tmp_path_factory.mktemp("residual") / "toy", source={})


def inputs(rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Newest observations, base actions and phases."""
    rng = np.random.default_rng(rows)
    seen, planned = rng.normal(0, 3, (rows, 3)), rng.uniform(-1, 1, (rows, 2))
    return seen.astype(np.float32), planned.astype(np.float32), (rng.integers(0, 3, (rows, 1)) / 3).astype(np.float32)


def by_hand(policy: ResidualPolicy, seen: np.ndarray, planned: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """The equation in numpy: normalise, clamp, network, add, denormalise, limits."""
    affine = policy.base.obs_affine("policy")
    normal = (seen - affine.offset.numpy()) / affine.scale.numpy()
    features = np.concatenate([normal.clip(-3, 3), planned, phase], axis=1).astype(np.float32)
    with torch.no_grad():
        cond = policy.encode({"policy": torch.from_numpy(features)[:, None]})
        zero = torch.zeros(len(seen), 1, 2)
        mean = policy.network(zero, torch.zeros(len(seen)), cond)[:, 0].numpy()
    total = (planned + 0.3 * mean.clip(-1, 1)).clip(-1, 1)
    norm = policy.base.action_norm
    action = total * norm.scale.numpy() + norm.offset.numpy()
    return action.clip(ROBOT.action.low, ROBOT.action.high)


@pytest.mark.parametrize("rows", [1, 5])
def test_the_second_stage_is_the_equation(residual: ResidualPolicy, bundle: Path, rows: int) -> None:
    seen, planned, phase = inputs(rows)
    action = Controller(bundle).correct({"policy": seen}, planned, phase)
    np.testing.assert_allclose(action, by_hand(residual, seen, planned, phase), atol=1e-4)


def test_the_first_stage_is_the_base_in_normalised_units(residual: ResidualPolicy, bundle: Path) -> None:
    rng = np.random.default_rng(0)
    seen, noise = rng.normal(0, 1, (3, 2, 3)).astype(np.float32), rng.standard_normal((3, 4, 2), np.float32)
    chunk = Controller(bundle).act({"policy": seen}, noise)
    with torch.no_grad():
        cond = residual.base.encode({"policy": torch.from_numpy(seen)})
        expected = residual.base.sample(cond, torch.from_numpy(noise)[None], deterministic=True).action.numpy()
    np.testing.assert_allclose(chunk, expected, atol=1e-5)


def test_the_process_corrects_as_the_controller_does(bundle: Path) -> None:
    seen, planned, phase = inputs(4)
    with PolicyProcess(bundle) as policy:
        np.testing.assert_array_equal(
            policy.correct({"policy": seen}, planned, phase),
            Controller(bundle).correct({"policy": seen}, planned, phase),
        )
        with pytest.raises(SpecError, match="base_action"):
            policy.correct({"policy": seen}, planned[:, :1], phase)


def test_the_manifest_says_what_the_models_take(bundle: Path) -> None:
    described = yaml.safe_load((bundle / "controller.yaml").read_text())
    assert [s["name"] for s in described["stages"]] == ["policy", "residual"]
    assert [s["rate_hz"] for s in described["stages"]] == [pytest.approx(50 / 3), 50.0]
    for stage in described["stages"]:
        session = onnxruntime.InferenceSession(bundle / stage["file"], providers=["CPUExecutionProvider"])
        assert {i.name: i.shape[1:] for i in session.get_inputs()} == {
            k: v["shape"][1:] for k, v in stage["inputs"].items()
        }
    assert list(described["robot"]["observation"]) == ["policy"]
    assert described["robot"]["action"]["names"] == ["left", "right"]
    assert to_yaml(read_manifest(bundle)) == (bundle / "controller.yaml").read_bytes()


def test_a_residual_that_computes_something_else_is_refused(residual: ResidualPolicy, tmp_path: Path) -> None:
    path = write_bundle(residual, tmp_path / "toy", source={})
    with np.load(path / "golden.npz") as file:
        golden = {name: file[name] for name in file.files}
    assert {f"residual/{name}" for name in ("action", BASE_ACTION, PHASE, "observation/policy")} <= set(golden)
    golden["residual/action"] = golden["residual/action"] + np.float32(1e-3)
    np.savez(tmp_path / "golden.npz", **golden)  # pyright: ignore[reportArgumentType]
    reseal(path, "golden.npz", (tmp_path / "golden.npz").read_bytes())
    with pytest.raises(BundleError, match="does not reproduce its golden actions"):
        Controller(path)
    (path / "residual.onnx").unlink()
    reseal(path, "golden.npz", (path / "golden.npz").read_bytes())
    with pytest.raises(BundleError, match=r"residual\.onnx is missing"):
        Controller(path)


def test_a_bundle_without_a_residual_has_nothing_to_correct(exported: Path) -> None:
    seen, planned, phase = inputs(1)
    with pytest.raises(SpecError, match="no residual"):
        Controller(exported).correct({"policy": seen}, planned, phase)


def test_a_bundle_drives_the_simulator_through_the_episodes_of_torch(tmp_path: Path) -> None:
    words = ("policy.execute=3", "policy.obs_horizon=2", "evaluate.episodes=7", "evaluate.num_envs=5")
    config = settings(tmp_path, *words)
    env = make("Hopper", 1)
    torch.manual_seed(0)
    base = Policy(config.policy, env.robot)
    policy = ResidualPolicy(ResidualConfig().policy, base, residual_robot(env.robot, base), 0.1)
    with torch.no_grad():
        for parameter in policy.network.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
    torch_record = evaluate_policy(config, policy, name="x", folder=tmp_path, videos=False)
    path = write_bundle(policy, tmp_path / "bundle", source={})
    record = run(path, for_bundle(config, path), calls=3)
    for mine, theirs in zip(record["per_seed"], torch_record["per_seed"], strict=True):
        assert (mine["seed"], mine["length"]) == (theirs["seed"], theirs["length"])
        assert mine["return"] == pytest.approx(theirs["return"], rel=1e-3)
    assert [row["call"] for row in record["latency"]] == [
        "inference",
        "correction: inference",
        "round trip between processes",
        "correction: round trip between processes",
        "correction: inference",
    ]
