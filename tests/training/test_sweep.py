"""Guidance and other denoising steps when a run is evaluated, one by one and swept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from robo_rlft.errors import ConfigError, RunError
from robo_rlft.training import evaluate as evaluation
from robo_rlft.training import finetune as finetuning
from robo_rlft.training import pretrain as pretraining
from robo_rlft.training.collect import collect
from robo_rlft.training.config import Config
from robo_rlft.training.policies import adapted_policy, load_policy, reference_path
from robo_rlft.training.report import REPORT, sweep_charts
from robo_rlft.training.sweep import parse, sweep
from tests.training.loops import settings


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run fine-tuned from `bc` beside it, which was cloned from `scratch`."""
    path = tmp_path_factory.mktemp("sweep")
    words = ("run.checkpoint=none", "policy.action_normaliser=bounds", "policy.obs_normaliser=gaussian")
    finetuning.finetune(settings(path, *words, "ppo.iterations=1", f"run.dir={path / 'scratch'}"))
    collect(settings(path, f"collect.source={path / 'scratch'}", "collect.episodes=4"))
    pretraining.pretrain(settings(path, f"run.dir={path / 'bc'}"))
    words = (f"run.checkpoint={path / 'bc'}", "ppo.actor_lr=0.01", f"run.dir={path / 'tuned'}")
    finetuning.finetune(settings(path, *words))
    return path / "tuned"


def evaluated(run: Path, *words: str) -> Config:
    return settings(run.parent, f"run.checkpoint={run}", *words)


def returns(run: Path, *words: str) -> list[float]:
    config = evaluated(run, *words)
    policy, _ = adapted_policy(config, run)
    record = evaluation.evaluate_policy(config, policy, name="x", folder=run, videos=False)
    return [row["return"] for row in record["per_seed"]]


def test_the_ends_of_guidance_are_the_runs_themselves(tuned: Path) -> None:
    assert reference_path(tuned) == tuned.parent / "bc"
    assert returns(tuned, "evaluate.guidance=1.0") == returns(tuned)
    assert returns(tuned, "evaluate.guidance=0.0") == returns(tuned.parent / "bc")
    assert returns(tuned, "evaluate.guidance=2.0") != returns(tuned)


def test_a_changed_policy_does_not_replace_the_runs_result(tuned: Path) -> None:
    evaluation.evaluate(evaluated(tuned))
    final = (tuned / "evaluation/final.json").read_bytes()
    evaluation.evaluate(evaluated(tuned, "evaluate.guidance=1.5", "evaluate.steps=3"))
    assert (tuned / "evaluation/final.json").read_bytes() == final
    assert json.loads((tuned / "evaluation/guidance-1.5-steps-3.json").read_bytes())["episodes"] == 5


def test_steps_are_those_asked_for(tuned: Path) -> None:
    policy, _ = adapted_policy(evaluated(tuned, "evaluate.steps=7"), tuned)
    obs = {"policy": torch.zeros(1, 1, policy.robot.observation["policy"].shape[0])}
    assert len(policy.sample(policy.encode(obs), policy.draw_noise(1)[:1], deterministic=True).latents) == 8
    assert load_policy(tuned)[0].chain.steps == 2


def test_a_sweep_holds_every_value_and_is_drawn(tuned: Path) -> None:
    table = sweep(evaluated(tuned), *parse("evaluate.guidance=2,0,1"))
    assert [row["value"] for row in table["rows"]] == [0.0, 1.0, 2.0]
    whole = [sum(returns(tuned, f"evaluate.guidance={w}")) / 5 for w in (0.0, 1.0, 2.0)]
    assert [row["return"]["mean"] for row in table["rows"]] == pytest.approx(whole)
    file = tuned / "sweeps/guidance.json"
    assert json.loads(file.read_bytes()) == table
    (series,) = sweep_charts(file)[0].series
    assert series.y.tolist() == [row["return"]["mean"] for row in table["rows"]]
    assert "Return over guidance" in (tuned / REPORT).read_text()


def test_a_damaged_sweep_is_named(tmp_path: Path) -> None:
    (tmp_path / "guidance.json").write_text("{}")
    with pytest.raises(RunError, match=r"guidance\.json is damaged: remove it or sweep again"):
        sweep_charts(tmp_path / "guidance.json")


@pytest.mark.parametrize(
    ("words", "message"),
    [("ppo.clip=1,2", "evaluate.guidance"), ("evaluate.steps=1,two", "numbers"), ("evaluate.steps=1.5", "numbers")],
)
def test_what_cannot_be_swept_is_said(words: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(words)


def test_policies_without_a_flow_or_a_past_are_refused(tuned: Path) -> None:
    scratch = tuned.parent / "scratch"
    with pytest.raises(ConfigError, match="not fine-tuned from another"):
        adapted_policy(evaluated(scratch, "evaluate.guidance=1.5"), scratch)
    gaussian = tuned.parent / "gaussian"
    finetuning.finetune(
        settings(
            tuned.parent, "run.checkpoint=none", "policy.chain.name=gaussian", "policy.chunk=1", "policy.execute=1",
            "policy.action_normaliser=bounds", "policy.obs_normaliser=none", "ppo.iterations=1", f"run.dir={gaussian}",
        )
    )  # fmt: skip
    with pytest.raises(ConfigError, match="needs a flow"):
        adapted_policy(evaluated(gaussian, "evaluate.steps=3"), gaussian)
    words = ("evaluate.guidance=1.5", f"evaluate.reference={tuned}")
    with pytest.raises(ConfigError, match="velocities of flows"):
        adapted_policy(evaluated(gaussian, *words), gaussian)
