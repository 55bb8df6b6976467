from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robo_rlft.cli import main
from robo_rlft.envs import make
from robo_rlft.errors import BundleError, SpecError
from robo_rlft.export.manifest import read_manifest
from robo_rlft.export.run import for_bundle, run
from robo_rlft.noise import episode_noise
from robo_rlft.policies import ChainConfig, NetworkConfig, Policy, PolicyConfig
from robo_rlft.training.config import Config
from robo_rlft.training.evaluate import actor_of, play
from robo_rlft.training.policies import policy_meta
from robo_rlft.training.rollout import History
from robo_rlft.training.run import Run

SEEDS = range(1_000_000, 1_000_007)


@pytest.fixture(scope="module")
def hopper_policy() -> Policy:
    env = make("Hopper", 1)
    config = PolicyConfig(
        network=NetworkConfig(hidden=[32]),
        chain=ChainConfig(name="reinflow", steps=2),
        obs_horizon=2,
        chunk=4,
        execute=3,
    )
    torch.manual_seed(0)
    policy = Policy(config, env.robot)
    env.close()
    return policy.eval()


@pytest.fixture(scope="module")
def finished_run(hopper_policy: Policy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder as the trainer leaves it, with two checkpoints."""
    folder = tmp_path_factory.mktemp("runs") / "hopper"
    with Run.open(folder, Config(), verb="pretrain") as opened:
        meta = policy_meta(hopper_policy, algorithm="bc", counters={"updates": 7.0}, ema=True)
        opened.checkpoints.save("last", {"policy": hopper_policy.state_dict()}, {}, meta)
        other = {k: v + 0.1 if v.is_floating_point() else v for k, v in hopper_policy.state_dict().items()}
        opened.checkpoints.save("best", {"policy": other}, {}, meta)
    return folder


@pytest.fixture(scope="module")
def hopper(finished_run: Path) -> Path:
    """The bundle that the verb `export` writes for the run."""
    assert main(["export", str(finished_run)]) == 0
    return finished_run / "bundle"


@pytest.fixture(scope="module")
def record(hopper: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("json") / "new" / "record.json"
    got = run(hopper, for_bundle(_config(), hopper), json_path=path, calls=20)
    assert json.loads(path.read_text()) == got
    return got


def test_the_bundle_tells_where_it_came_from(hopper: Path) -> None:
    source = read_manifest(hopper).source
    assert source["run"] == "hopper"
    assert (source["checkpoint"], source["algorithm"], source["ema"]) == ("last", "bc", True)
    assert source["counters"] == {"updates": 7.0}
    assert source["versions"]["torch"] == version("torch")


def test_the_best_checkpoint_is_another_bundle(
    hopper: Path, finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = read_manifest(hopper).files
    assert main(["export", str(finished_run), "export.checkpoint=best"]) == 2
    assert "holds another bundle" in capsys.readouterr().err
    assert read_manifest(hopper).files == before
    other = finished_run.parent / "best"
    assert main(["export", str(finished_run), "export.checkpoint=best", f"export.dir={other}"]) == 0
    assert read_manifest(other).files["policy.onnx"] != before["policy.onnx"]


def test_the_controller_plays_the_episodes_of_the_policy(hopper_policy: Policy, record: dict[str, Any]) -> None:
    env = make("Hopper", 3)
    expected = play(env, actor_of(hopper_policy), SEEDS, hopper_policy.event, History(2, ["policy"]))
    env.close()
    assert [row["seed"] for row in record["per_seed"]] == list(SEEDS)
    assert [row["length"] for row in record["per_seed"]] == [e.length for e in expected]
    np.testing.assert_allclose([row["return"] for row in record["per_seed"]], [e.ret for e in expected], rtol=1e-3)
    assert len({row["return"] for row in record["per_seed"]}) == len(SEEDS)


def test_the_record_has_latencies_of_one_row_and_of_the_batch(record: dict[str, Any]) -> None:
    rows = {(row["call"], row["rows"]): row for row in record["latency"]}
    assert set(rows) == {("inference", 1), ("round trip between processes", 1), ("inference", 3)}
    for row in rows.values():
        assert 0 < row["p50_us"] <= row["p99_us"] <= row["p99.9_us"] <= row["max_us"]
    assert rows["inference", 1]["calls"] == 20
    assert rows["inference", 1]["p50_us"] < rows["round trip between processes", 1]["p50_us"]


def test_another_robot_is_refused_with_the_first_difference(hopper: Path) -> None:
    config = _config()
    config.env.id = "HalfCheetah"
    with pytest.raises(SpecError, match=r"observation 'policy': bundle .* has shape \(11,\).*HalfCheetah has \(17,\)"):
        run(hopper, config)


def test_the_bundle_names_its_environment_unless_the_user_does(hopper: Path) -> None:
    config = _config()
    config.env.id = "HalfCheetah"
    assert for_bundle(config, hopper).env.id == "Hopper"
    assert for_bundle(config, hopper, chosen=True).env.id == "HalfCheetah"
    config.env.params = {"healthy_reward": 2.0}
    params = for_bundle(config, hopper).env.params
    assert params["healthy_reward"] == 2.0
    assert len(params) > 1


def test_the_verb_prints_success_and_latency(hopper: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(hopper), "evaluate.episodes=2", "evaluate.num_envs=2"]) == 0
    said = capsys.readouterr().out
    assert "golden check" in said
    assert "p99.9" in said


def test_the_verb_refuses_a_robot_the_user_chose_wrongly(hopper: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(hopper), "env.id=HalfCheetah"]) == 2
    assert "error: observation 'policy'" in capsys.readouterr().err


def test_a_tampered_bundle_does_not_run(bundle: Path) -> None:
    (bundle / "golden.npz").write_bytes(b"")
    with pytest.raises(BundleError, match=r"golden\.npz"):
        run(bundle, _config())


def test_noise_depends_on_episode_and_chunk_only() -> None:
    draw = episode_noise(5, 2, (4, 3))
    assert draw.dtype == np.float32
    np.testing.assert_array_equal(draw, episode_noise(5, 2, (4, 3)))
    others = [episode_noise(s, c, (4, 3)) for s, c in ((5, 3), (6, 2), (2, 5))]
    assert all(np.abs(draw - other).max() > 0.1 for other in others)
    many = np.stack([episode_noise(s, 0, (8, 8)) for s in range(500)])
    assert abs(many.mean()) < 0.02
    assert many.std() == pytest.approx(1, abs=0.02)


def _config() -> Config:
    config = Config()
    config.evaluate.episodes, config.evaluate.num_envs, config.env.threads = len(SEEDS), 3, 1
    return config
