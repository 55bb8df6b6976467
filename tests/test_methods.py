"""Every method's recipe goes the whole way on the arm in small: pretrain, finetune, evaluate, export, run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from robo_rlft.errors import CheckpointError, ConfigError
from robo_rlft.export.bundle import write_bundle
from robo_rlft.export.run import for_bundle
from robo_rlft.export.run import run as run_bundle
from robo_rlft.training.collect import collect
from robo_rlft.training.config import Config
from robo_rlft.training.configure import compose
from robo_rlft.training.evaluate import evaluate_policy
from robo_rlft.training.finetune import finetune
from robo_rlft.training.metrics import read
from robo_rlft.training.policies import load_policy
from robo_rlft.training.pretrain import pretrain
from robo_rlft.training.rules import validate

FEW = {"dppo": ("policy.chain.steps=3", "policy.chain.trained_steps=2")}
"""Twenty steps take long to export."""
METHODS = (
    *("reinflow", "dppo", "flow_sde", "flow_noise", "shortcut", "mean_flow", "fpo"),
    *("dsrl", "awr", "gaussian_ppo", "resip"),
)
SMALL = (
    "collect.episodes=4",
    "collect.num_envs=4",
    "policy.network.hidden=[16]",
    "bc.steps=5",
    "bc.warmup=1",
    "bc.batch_size=16",
    "bc.validation=0",
    "env.num_envs=2",
    "env.threads=1",
    "matmul=highest",
    "ppo.iterations=2",
    "ppo.rollout=4",
    "ppo.minibatch=4",
    "ppo.epochs=1",
    "ppo.critic_warmup=0",
    "ppo.critic_hidden=[8]",
    "run.eval_every=0",
    "run.tensorboard=false",
    "evaluate.episodes=2",
    "evaluate.num_envs=2",
    "evaluate.videos=0",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with demonstrations and a cloned flow."""
    path = tmp_path_factory.mktemp("methods")
    collect(settings(path, "bc", path / "none"))
    pretrain(settings(path, "bc", path / "flow"))
    return path


def settings(folder: Path, method: str, run: Path, *words: str) -> Config:
    places = (f"data.path={folder / 'demos.zarr'}", f"run.dir={run}")
    return compose([f"recipe={method}/arm_peg_insert", *SMALL, *FEW.get(method, ()), *places, *words])


@pytest.mark.parametrize("method", METHODS)
def test_the_whole_way(method: str, folder: Path, tmp_path: Path) -> None:
    start, end = tmp_path / "start", tmp_path / "end"
    pretrain(settings(folder, method, start))
    config = settings(folder, method, end, f"run.checkpoint={start}")
    finetune(config)
    figures = read(end)
    assert figures["ppo/first_ratio_error"].max() <= 1e-5
    assert figures["ppo/actor_grad_norm"].min() > 0
    policy, _ = load_policy(end)
    record = evaluate_policy(config, policy, name="end", folder=end, videos=False)
    bundle = write_bundle(policy, tmp_path / "bundle", source={})
    driven = run_bundle(bundle, for_bundle(config, bundle, chosen=True), calls=5)
    returns = [[row["return"] for row in r["per_seed"]] for r in (record, driven)]
    np.testing.assert_allclose(returns[0], returns[1])


@pytest.mark.parametrize("method", ["reinflow", "flow_sde", "flow_noise", "fpo", "dsrl", "awr"])
def test_one_cloned_flow_serves_every_flow_method(method: str, folder: Path, tmp_path: Path) -> None:
    """And before the first step it acts as the cloned policy does, from its most likely noise where it chooses that."""
    words = (f"run.checkpoint={folder / 'flow'}", "policy.chain.latent_clip=1")
    config = settings(folder, method, tmp_path / "run", *words)
    still = replace(config, ppo=replace(config.ppo, actor_lr=0.0, actor_lr_final=0.0))
    finetune(still)
    cloned, _ = load_policy(folder / "flow")
    tuned, _ = load_policy(tmp_path / "run")
    for name, weight in cloned.network.state_dict().items():
        assert weight.equal(tuned.network.state_dict()[name]), name
    noise = cloned.draw_noise(3)[:1] * tuned.chain.starts_from_noise
    obs = {"policy": noise.new_zeros(3, 1, cloned.cond_width)}
    ends = [p.sample(p.encode(obs), noise, deterministic=True).action for p in (cloned, tuned)]
    assert ends[0].equal(ends[1])


def test_dsrl_never_touches_the_flow(folder: Path, tmp_path: Path) -> None:
    finetune(settings(folder, "dsrl", tmp_path / "run", f"run.checkpoint={folder / 'flow'}", "ppo.bc_coef=0.1"))
    cloned, _ = load_policy(folder / "flow")
    tuned, _ = load_policy(tmp_path / "run")
    for name, weight in cloned.network.state_dict().items():
        assert weight.equal(tuned.network.state_dict()[name]), name
    assert all(p.any() for p in tuned.chain.parameters()), "zero at first"


def test_a_deterministic_flow_explores_by_its_noise(folder: Path, tmp_path: Path) -> None:
    words = (f"run.checkpoint={folder / 'flow'}", "policy.chain.name=euler")
    finetune(settings(folder, "awr", tmp_path / "run", *words))
    assert read(tmp_path / "run")["ppo/actor_grad_norm"].min() > 0
    with pytest.raises(ConfigError, match="euler is deterministic and has no likelihood"):
        validate(settings(folder, "reinflow", tmp_path / "no", *words), "finetune")


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("ppo.objective=awr",), "which policy.chain.name=dsrl leaves frozen"),
        (("run.checkpoint=none",), "dsrl steers a cloned flow"),
    ],
)
def test_dsrl_without_anything_to_learn_is_refused(
    words: tuple[str, ...], match: str, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=match):
        validate(settings(folder, "dsrl", tmp_path / "run", *words), "finetune")


@pytest.mark.parametrize(("method", "needs"), [("dppo", "noise of 3 levels"), ("shortcut", "a velocity for a step")])
def test_a_chain_that_asks_for_something_else_is_refused(method: str, needs: str, folder: Path, tmp_path: Path) -> None:
    config = settings(folder, method, tmp_path / "run", f"run.checkpoint={folder / 'flow'}")
    with pytest.raises(CheckpointError, match=rf"{needs}.*was trained as euler and predicts a velocity"):
        finetune(config)
