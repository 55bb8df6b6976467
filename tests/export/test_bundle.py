from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import yaml
from torch import nn

from robo_rlft.errors import BundleError, RunError
from robo_rlft.export import bundle as module
from robo_rlft.export import publish as publishing
from robo_rlft.export.bundle import write_bundle
from robo_rlft.export.graph import DeterministicPolicy
from robo_rlft.export.manifest import read_manifest, sha256
from robo_rlft.export.runtime import Controller
from robo_rlft.policies import Policy

from .conftest import ROBOT, make_policy

FILES = ("policy.onnx", "weights.safetensors", "golden.npz", "README.md", "runtime.json")
FAST = [("mlp", "gaussian", 1), ("mlp", "dsrl", 4), ("unet1d", "reinflow", 1), ("transformer", "euler", 2)]
FLOWS = [(n, c, k) for n in ("mlp", "unet1d", "transformer") for c in ("euler", "reinflow") for k in (1, 3)]
OTHERS = ("flow_sde", "flow_noise", "fpo", "dsrl", "shortcut", "mean_flow", "ddpm", "ddim")
EVERY = [
    *FLOWS,
    *(("mlp", c, k) for c in OTHERS for k in (1, 4)),
    *((n, "gaussian", 1) for n in ("mlp", "unet1d", "transformer")),
]
CASES = [*FAST, *(pytest.param(*case, marks=pytest.mark.slow) for case in EVERY if case not in FAST)]


@pytest.mark.parametrize(("network", "chain", "steps"), CASES)
def test_the_bundle_acts_as_the_policy_does(network: str, chain: str, steps: int, tmp_path: Path) -> None:
    policy = make_policy(network, chain, steps)
    controller = Controller(write_bundle(policy, tmp_path / "bundle", source={}))
    rng = np.random.default_rng(1)
    for rows in (1, 2, 33):
        observation = rng.normal(0, 3, (rows, 2, 3)).astype(np.float32)
        noise = rng.standard_normal((rows, 4, 2), dtype=np.float32)
        with torch.no_grad():
            cond = policy.encode({"policy": torch.from_numpy(observation)})
            expected = policy.to_robot(policy.sample(cond, torch.from_numpy(noise)[None], deterministic=True).action)
        expected = expected.numpy().clip(ROBOT.action.low, ROBOT.action.high)
        assert np.abs(controller.act({"policy": observation}, noise) - expected).max() < 1e-5 * 8
    assert expected.std() > 0.1, "a constant policy would prove nothing"


def test_a_constant_velocity_gives_the_action_of_the_formula(tmp_path: Path) -> None:
    """v = b everywhere: x_1 = clip(x_0 + b / 2), x_2 = clip(x_1 + b / 2), action = limits(scale x_2 + offset)."""
    policy = make_policy(chain="euler", steps=2)
    with torch.no_grad():
        for parameter in policy.network.parameters():
            parameter.zero_()
        last = [layer for layer in policy.network.modules() if isinstance(layer, nn.Linear)][-1]
        last.bias.copy_(torch.linspace(-0.6, 0.8, 8))
    controller = Controller(write_bundle(policy, tmp_path / "bundle", source={}))
    noise = np.random.default_rng(0).standard_normal((5, 4, 2))
    velocity = np.linspace(-0.6, 0.8, 8).reshape(4, 2)
    x = (noise + velocity / 2).clip(-1, 1)
    x = (x + velocity / 2).clip(-1, 1)
    expected = (x * [8.0, 2.0]).clip(ROBOT.action.low, ROBOT.action.high)
    action = controller.act({"policy": np.zeros((5, 2, 3), np.float32)}, noise.astype(np.float32))
    np.testing.assert_allclose(action, expected, atol=1e-5)
    assert np.abs(action[..., 1]).max() == pytest.approx(1.5), "the limit of 'right' lies within the data's range"


def test_the_manifest_says_what_a_robot_needs(exported: Path) -> None:
    said = yaml.safe_load((exported / "controller.yaml").read_text())
    assert said["robot"]["action"]["names"] == ["left", "right"]
    assert said["robot"]["observation"]["policy"]["units"] == ["m", "m", "rad"]
    stage = said["stages"][0]
    assert stage["rate_hz"] == pytest.approx(50.0 / 3)
    assert stage["inputs"]["observation/policy"]["shape"] == ["N", 2, 3]
    assert stage["inputs"]["noise"]["shape"] == ["N", 4, 2]
    assert said["normalisation"]["policy"]["offset"] == [0.0, 2.0, 0.0]
    assert said["normalisation"]["action"]["scale"] == [8.0, 2.0]
    assert said["files"] == {n: sha256((exported / n).read_bytes()) for n in FILES}
    robot = read_manifest(exported).robot
    assert robot == replace(ROBOT, observation={"policy": ROBOT.observation["policy"]})


def test_the_golden_inputs_reach_the_corners_of_float32(exported: Path) -> None:
    with np.load(exported / "golden.npz") as golden:
        observed = golden["observation/policy"]
        assert len(observed) >= 8
        assert np.isfinite(observed).all()
        assert observed.max() == np.finfo(np.float32).max
        assert observed.min() == -np.finfo(np.float32).max
        assert np.isfinite(golden["action"]).all()


def test_the_model_is_one_file_that_names_no_machine(exported: Path) -> None:
    assert sorted(p.name for p in exported.iterdir()) == sorted([*FILES, "controller.yaml"])
    data = (exported / "policy.onnx").read_bytes()
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    assert onnx.load_from_string(data).opset_import[0].version == 18
    for path in (str(Path(module.__file__).parents[2]), str(Path(torch.__file__).parent), ".py"):
        assert path.encode() not in data


def test_the_exploration_noise_stays_out_of_the_model(exported: Path) -> None:
    weights = {w.name for w in onnx.load(exported / "policy.onnx").graph.initializer}
    assert any("network" in name for name in weights)
    assert not any("chain.noise" in name for name in weights)


def test_exporting_again_changes_nothing(policy: Policy, bundle: Path) -> None:
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in bundle.iterdir()}
    write_bundle(policy, bundle, source={"run": "toy"})
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in bundle.iterdir()} == before


@pytest.fixture
def instant(monkeypatch: pytest.MonkeyPatch, exported: Path) -> None:
    """Skip the slow export: these tests are about folders."""
    monkeypatch.setattr(module, "to_onnx", lambda _: (exported / "policy.onnx").read_bytes())


@pytest.mark.usefixtures("instant")
class TestFolders:
    def test_another_bundle_is_replaced_only_when_told(self, policy: Policy, bundle: Path) -> None:
        before = (bundle / "controller.yaml").read_bytes()
        with pytest.raises(BundleError, match=r"holds another bundle.*export\.overwrite=true"):
            write_bundle(policy, bundle, source={"run": "other"})
        assert (bundle / "controller.yaml").read_bytes() == before
        write_bundle(policy, bundle, source={"run": "other"}, overwrite=True)
        assert read_manifest(bundle).source == {"run": "other"}
        assert [p.name for p in bundle.parent.iterdir()] == [bundle.name]

    def test_a_folder_that_is_no_bundle_is_never_replaced(self, policy: Policy, tmp_path: Path) -> None:
        (tmp_path / "work").mkdir()
        (tmp_path / "work" / "thesis.tex").write_text("years")
        with pytest.raises(BundleError, match="no controller bundle"):
            write_bundle(policy, tmp_path / "work", source={}, overwrite=True)
        assert (tmp_path / "work" / "thesis.tex").read_text() == "years"

    def test_an_empty_folder_is_filled(self, policy: Policy, tmp_path: Path) -> None:
        (tmp_path / "new").mkdir()
        Controller(write_bundle(policy, tmp_path / "new", source={}))

    def test_a_model_that_disagrees_with_torch_is_not_published(
        self, policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        right = DeterministicPolicy.answer
        monkeypatch.setattr(DeterministicPolicy, "answer", lambda self, x: right(self, x) + np.float32(1e-3))
        with pytest.raises(BundleError, match=r"does not reproduce its golden actions.*error is 0\.0005"):
            write_bundle(policy, tmp_path / "bundle", source={})
        assert not list(tmp_path.iterdir())

    def test_a_fault_at_any_write_leaves_the_old_bundle(
        self, policy: Policy, bundle: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = {p.name: p.read_bytes() for p in bundle.iterdir()}
        for broken in range(8):
            with monkeypatch.context() as patch:
                _fail_at(patch, broken)
                with pytest.raises(RunError, match="disk is full"):
                    write_bundle(policy, bundle, source={"run": "other"}, overwrite=True)
            assert {p.name: p.read_bytes() for p in bundle.iterdir()} == before
            assert [p.name for p in bundle.parent.iterdir()] == [bundle.name]

    def test_what_a_kill_left_behind_is_removed(self, policy: Policy, tmp_path: Path) -> None:
        (tmp_path / ".tmp-bundle-12345678").mkdir()
        write_bundle(policy, tmp_path / "bundle", source={})
        assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def _fail_at(patch: pytest.MonkeyPatch, broken: int) -> None:
    """Make the call number `broken` of the six writes and two renames of an export find a full disk."""
    calls = iter(range(100))
    write, rename = publishing.write_synced, Path.rename

    def count() -> None:
        if next(calls) == broken:
            raise OSError(28, "No space left on device")

    def failing_write(path: Path, data: bytes) -> None:
        count()
        write(path, data)

    def failing_rename(self: Path, target: Path) -> Path:
        count()
        return rename(self, target)

    patch.setattr(publishing, "write_synced", failing_write)
    patch.setattr(Path, "rename", failing_rename)
