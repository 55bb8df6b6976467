"""A policy that sees: record, clone, fine-tune, evaluate, export and run, in small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from robo_rlft.data import Dataset
from robo_rlft.errors import SpecError
from robo_rlft.export.bundle import write_bundle
from robo_rlft.export.manifest import MODEL_FILE
from robo_rlft.export.run import for_bundle
from robo_rlft.export.run import run as run_bundle
from robo_rlft.export.runtime import Controller
from robo_rlft.policies import Policy
from robo_rlft.policies.policy import Obs
from robo_rlft.training import pretrain as pretraining
from robo_rlft.training.collect import collect
from robo_rlft.training.config import Config
from robo_rlft.training.configure import compose
from robo_rlft.training.evaluate import evaluate_policy
from robo_rlft.training.finetune import FineTuner, finetune
from robo_rlft.training.metrics import read
from robo_rlft.training.policies import load_policy
from robo_rlft.training.pretrain import pretrain
from robo_rlft.training.run import Run

pytestmark = pytest.mark.usefixtures("opengl")
SMALL = (
    "recipe=bc/arm_peg_insert_pixels",
    "env.images.size=[16,24]",
    "env.num_envs=2",
    "env.threads=1",
    "matmul=highest",
    "collect.episodes=2",
    "collect.num_envs=2",
    "policy.network.hidden=[16]",
    "policy.encoder.width=4",
    "policy.encoder.depth=1",
    "policy.encoder.points=4",
    "policy.encoder.features=8",
    "policy.obs_horizon=2",
    "bc.steps=3",
    "bc.warmup=1",
    "bc.batch_size=8",
    "bc.validation=0",
    "ppo.iterations=1",
    "ppo.rollout=2",
    "ppo.minibatch=4",
    "ppo.critic_warmup=0",
    "ppo.critic_hidden=[8]",
    "run.eval_every=0",
    "run.tensorboard=false",
    "evaluate.episodes=2",
    "evaluate.num_envs=2",
    "evaluate.videos=0",
    "env.params={max_episode_steps:40}",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pixels")


@pytest.fixture(scope="module")
def demos(folder: Path) -> Path:
    return collect(settings(folder, folder / "none"))


@pytest.fixture(scope="module")
def cloned(folder: Path, demos: Path) -> Path:
    return pretrain(settings(folder, folder / "start"))


def settings(folder: Path, run: Path, *words: str) -> Config:
    return compose([*SMALL, f"data.path={folder / 'demos.zarr'}", f"run.dir={run}", *words])


def tuning(folder: Path, cloned: Path, run: Path) -> Config:
    return settings(folder, run, "policy.chain.name=reinflow", f"run.checkpoint={cloned}")


def test_the_whole_way(folder: Path, cloned: Path, tmp_path: Path) -> None:
    """The controller plays the very episodes of the evaluation, from its own images."""
    config = tuning(folder, cloned, tmp_path / "end")
    finetune(config)
    figures = read(tmp_path / "end")
    assert figures["ppo/first_ratio_error"].max() <= 1e-5
    assert figures["ppo/actor_grad_norm"].min() > 0
    policy, _ = load_policy(tmp_path / "end")
    record = evaluate_policy(config, policy, name="end", folder=tmp_path, videos=False)
    bundle = write_bundle(policy, tmp_path / "bundle", source={})
    driven = run_bundle(bundle, for_bundle(config, bundle), calls=5)
    rows = [[(row["return"], row["length"]) for row in r["per_seed"]] for r in (record, driven)]
    np.testing.assert_allclose(rows[0], rows[1])


def test_images_stay_bytes_from_the_data_set_to_the_update(
    folder: Path, demos: Path, cloned: Path, tmp_path: Path
) -> None:
    stored = Dataset.open(demos).episode(0).observation["image/wrist"]
    assert stored.dtype == np.uint8
    assert stored.shape[1:] == (16, 24, 3)
    assert np.ptp(stored) > 50
    config = tuning(folder, cloned, tmp_path / "run")
    with Run.open(tmp_path / "run", config, verb="finetune") as run:
        tuner = FineTuner(config, run)
        rollout = tuner.collector.collect(tuner.learner.policy, 2)
        tuner.env.close()
    assert rollout.obs["image/wrist"].dtype == torch.uint8
    assert rollout.obs["image/wrist"].shape == (4, 2, 16, 24, 3)
    assert "image/wrist" not in rollout.critic_obs.keys() | rollout.final_obs.keys()


def test_recorded_images_belong_to_their_steps(demos: Path) -> None:
    """The tool moves between any two steps of a demonstration, so neighbouring images differ."""
    episode = Dataset.open(demos).episode(0).observation
    moved = np.abs(np.diff(episode["proprio"][:, :6], axis=0)).max(1) > 2e-3
    changed = (np.diff(episode["image/wrist"].astype(int), axis=0) != 0).any((1, 2, 3))
    assert moved.sum() > 5
    assert changed[moved].all()


def test_training_shifts_images_and_validation_does_not(
    folder: Path, demos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shifted: list[int] = []
    augment = Policy.augment

    def watched(self: Policy, obs: Obs, generator: torch.Generator | None = None) -> dict[str, torch.Tensor]:
        shifted.append(len(obs["image/wrist"]))
        return augment(self, obs, generator)

    monkeypatch.setattr(Policy, "augment", watched)
    monkeypatch.setattr(pretraining, "LOG_EVERY", 1)
    pretrain(settings(folder, tmp_path / "run", "bc.steps=10", "bc.validation=0.5"))
    assert len(shifted) == 10  # one batch per update; the held-out batches come besides


def test_onnx_takes_bytes_and_equals_torch(cloned: Path, tmp_path: Path) -> None:
    policy, _ = load_policy(cloned)
    bundle = write_bundle(policy, tmp_path / "bundle", source={})
    session = onnxruntime.InferenceSession(bundle / MODEL_FILE)
    types = {i.name: i.type for i in session.get_inputs()}
    assert types["observation/image/wrist"] == "tensor(uint8)"
    controller, rng = Controller(bundle), np.random.default_rng(0)
    seen = {
        "proprio": rng.normal(0, 0.3, (5, 2, *policy.robot.observation["proprio"].shape)).astype(np.float32),
        "image/wrist": rng.integers(0, 256, (5, 2, 16, 24, 3), dtype=np.uint8),
    }
    noise = rng.standard_normal((5, *policy.event), dtype=np.float32)
    with torch.no_grad():
        cond = policy.encode({k: torch.from_numpy(v) for k, v in seen.items()})
        action = policy.to_robot(policy.sample(cond, torch.from_numpy(noise)[None], deterministic=True).action)
    np.testing.assert_allclose(controller.act(seen, noise), action.clamp(-1, 1).numpy(), atol=1e-5)
    with pytest.raises(SpecError, match="must be uint8"):
        controller.act({**seen, "image/wrist": seen["image/wrist"].astype(np.float32)}, noise)
