"""What is practised is chosen, survives a kill, and is measured variant by variant, with every method that collects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robo_rlft.data import Dataset
from robo_rlft.envs import make
from robo_rlft.envs.base import BatchEnv, ChunkResult
from robo_rlft.errors import ConfigError
from robo_rlft.learning.config import CurriculumConfig
from robo_rlft.training import evaluate as evaluation
from robo_rlft.training import finetune as finetuning
from robo_rlft.training.collect import collect
from robo_rlft.training.config import Config
from robo_rlft.training.critic_rounds import CriticTrainer
from robo_rlft.training.curriculum import Curriculum
from robo_rlft.training.metrics import read
from robo_rlft.training.policies import load_policy
from robo_rlft.training.pretrain import pretrain
from robo_rlft.training.report import report_for
from tests.training.loops import settings
from tests.training.test_loops import StoppedError, assert_same_run

VARIANTS = {"wide": {"clearance": 0.008, "start_range": 0.0}, "snug": {"clearance": 0.001}}
PEG = (
    "env.id=ArmPegInsert",
    "env.params.max_episode_steps=8",
    "env.params.hole_range=0.0",
    "env.params.variants={wide: {clearance: 0.008, start_range: 0.0}, snug: {clearance: 0.001}}",
    "policy.chunk=4",
    "policy.execute=4",
    "curriculum.name=both",
    "curriculum.states=8",
    "curriculum.temperature=0.1",
)


def peg(folder: Path, *words: str) -> Config:
    return settings(folder, *PEG, *words)


def make_peg(num_envs: int = 4, **params: Any) -> BatchEnv:
    return make("ArmPegInsert", num_envs, seed=0, threads=1, max_episode_steps=8, variants=VARIANTS, **params)


def curriculum_of(env: BatchEnv, name: str = "both", **changes: Any) -> Curriculum:
    """One whose environments have begun."""
    made = Curriculum(env, CurriculumConfig(name=name, **changes), seed=3)
    made.choose()
    env.reset(seed=0)
    made.begin()
    return made


def to_the_end(env: BatchEnv, curriculum: Curriculum) -> tuple[ChunkResult, ChunkResult]:
    """A chunk in which all episodes end, as the environment gave it and as the curriculum made it."""
    result = env.step_chunk(torch.zeros(env.num_envs, 8, 6))
    assert bool(result.done.all())
    return result, curriculum.next(result, [(0.0, 8, i % 2 == 0) for i in range(env.num_envs)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a policy that knows nothing yet, and one cloned from its episodes."""
    path = tmp_path_factory.mktemp("curriculum")
    scratch = ("run.checkpoint=none", "policy.action_normaliser=bounds", "policy.obs_normaliser=gaussian")
    scratch += ("ppo.iterations=1", "curriculum.name=none")
    finetuning.finetune(peg(path, *scratch, f"run.dir={path / 'scratch'}"))
    collect(peg(path, f"collect.source={path / 'scratch'}", "collect.episodes=7", "collect.num_envs=3"))
    pretrain(peg(path, f"run.dir={path / 'bc'}"))
    return path


@pytest.mark.parametrize("rounds", [1, 3])
def test_a_run_with_a_curriculum_that_was_cut_off_ends_in_the_same_bits(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rounds: int
) -> None:
    words, iterate = (f"run.checkpoint={folder / 'bc'}",), finetuning.FineTuner.iterate
    finetuning.finetune(peg(folder, *words, f"run.dir={tmp_path / 'whole'}"))

    def stop_after(trainer: finetuning.FineTuner) -> dict[str, float]:
        if trainer.iteration == rounds:
            raise StoppedError
        return iterate(trainer)

    monkeypatch.setattr(finetuning.FineTuner, "iterate", stop_after)
    cut = peg(folder, *words, f"run.dir={tmp_path / 'cut'}")
    with pytest.raises(StoppedError):
        finetuning.finetune(cut)
    monkeypatch.undo()
    finetuning.finetune(cut)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
    figures = read(tmp_path / "cut")
    assert figures["curriculum/replayed"].max() > 0
    assert figures["ppo/first_ratio_error"].max() <= 1e-5
    np.testing.assert_allclose(figures["curriculum/probability/wide"] + figures["curriculum/probability/snug"], 1)


def test_the_bandit_hears_of_each_variants_advantages(folder: Path, tmp_path: Path) -> None:
    """One round, by hand: Q = mean |A| of the variant's rows over the root mean square of all rows."""
    config = peg(
        folder,
        f"run.dir={tmp_path / 'run'}",
        f"run.checkpoint={folder / 'bc'}",
    )
    with finetuning.Run.open(tmp_path / "run", config, verb="finetune") as run:
        trainer = finetuning.FineTuner(config, run)
        rollout = trainer.collector.collect(trainer.learner.policy, 6)
        assert set(rollout.variant.ravel()) == {0, 1}
        batch, _ = trainer._batch(rollout)
        # PPO's own are centred and scaled: undo that with what the batch says of the value function.
        size, raw = rollout.variant.ravel(), (batch.target - batch.value).double().numpy()
        bandit = trainer.collector.curriculum.bandit
        assert bandit is not None
        for c in (0, 1):
            expected = np.abs(raw[size == c]).mean() / np.sqrt(np.mean(raw**2))
            assert bandit.q[c] == pytest.approx(expected, rel=1e-4)
        trainer.env.close()


def test_without_a_curriculum_every_variant_comes_equally_often() -> None:
    env = make_peg(8)
    curriculum = curriculum_of(env, "none")
    seen = [env.variant]
    for _ in range(40):
        to_the_end(env, curriculum)
        seen.append(env.variant)
    count = np.size(seen)
    assert np.mean(seen) == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(count))
    env.close()


def test_kept_starts_come_back_with_their_variant_and_are_told_how_they_ended() -> None:
    env = make_peg(4)
    curriculum = curriculum_of(env, replay=1.0)
    starts = curriculum.starts
    assert starts is not None
    assert len(starts) == 4
    first = env.get_state()
    for i, row in enumerate(starts.states):
        assert all(np.array_equal(row[name], values[i]) for name, values in first.items())
    _, after = to_the_end(env, curriculum)
    assert starts.count.tolist() == [1, 1, 1, 1]
    assert starts.mean.tolist() == [1, 0, 1, 0]
    now = env.get_state()
    assert (curriculum._place >= 0).all()
    for i, place in enumerate(curriculum._place):
        assert np.array_equal(now["physics"][i], starts.states[place]["physics"])
        assert env.variant[i] == starts.variant[place]
    shown = env.set_state(now)
    assert torch.equal(after.obs["policy"], shown["policy"]), "the policy must see the start that was put in place"
    env.close()


def test_an_environment_that_was_lent_a_start_draws_its_next_one_anew() -> None:
    """Two copies of one saved state hold the same random numbers; their next own starts must not be the same."""
    env = make("ArmPegInsert", 6, seed=0, threads=1, max_episode_steps=8)
    curriculum = curriculum_of(env, "initial_states", replay=1.0, states=1)
    to_the_end(env, curriculum)
    lent = np.flatnonzero(curriculum._borrowed)
    assert len(lent) >= 2
    curriculum.config.replay = 0.0
    raw, made = to_the_end(env, curriculum)
    assert torch.equal(raw.obs["policy"][lent[0]], raw.obs["policy"][lent[1]]), "nothing to put right"
    drawn = made.obs["policy"][lent]
    assert len(torch.unique(drawn, dim=0)) == len(lent)
    assert not curriculum._borrowed.any()
    env.close()


def test_forked_environments_go_on_from_their_leaders_start() -> None:
    env = make_peg(4)
    curriculum = curriculum_of(env)
    env.fork(0, [0, 1])
    env.fork(2, [2, 3])
    curriculum.fork([0, 0, 2, 2])
    assert curriculum._place.tolist() == [0, 0, 2, 2]
    assert curriculum._borrowed.tolist() == [False, True, False, True]
    env.close()


def test_group_advantages_residuals_and_critics_practise_by_the_same_choice(folder: Path, tmp_path: Path) -> None:
    start, few = f"run.checkpoint={folder / 'bc'}", ("ppo.iterations=2", "critic.rounds=2", "critic.updates=2")
    methods = {
        "group": ("ppo.advantage=group", "ppo.group=2"),
        "residual": ("residual.enabled=true", "residual.network.hidden=[8]"),
        "critic": ("algorithm=chunk_critic", "critic.rollout=6", "critic.hidden=[8]", "critic.validation=0.25"),
        "awr": ("ppo.objective=awr",),
    }
    for name, words in methods.items():
        finetuning.finetune(peg(folder, start, *few, *words, f"run.dir={tmp_path / name}"))
        figures = read(tmp_path / name)
        assert np.isfinite(figures["curriculum/q/wide"]).all(), name
        assert figures["curriculum/starts"].max() > 0, name
    assert read(tmp_path / "critic")["curriculum/q/snug"].max() > 0


def test_the_critics_curriculum_survives_a_kill(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("algorithm=chunk_critic", "critic.rounds=3", "critic.rollout=6", "critic.updates=2", "critic.hidden=[8]")
    words += ("critic.validation=0.25", f"run.checkpoint={folder / 'bc'}")
    finetuning.finetune(peg(folder, *words, f"run.dir={tmp_path / 'whole'}"))
    iterate = CriticTrainer.iterate

    def stop_after(trainer: CriticTrainer) -> dict[str, float]:
        if trainer.round == 2:
            raise StoppedError
        return iterate(trainer)

    monkeypatch.setattr(CriticTrainer, "iterate", stop_after)
    with pytest.raises(StoppedError):
        finetuning.finetune(peg(folder, *words, f"run.dir={tmp_path / 'cut'}"))
    monkeypatch.undo()
    finetuning.finetune(peg(folder, *words, f"run.dir={tmp_path / 'cut'}"))
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_starts_of_a_task_without_success_are_kept_by_the_spread_of_their_returns(folder: Path, tmp_path: Path) -> None:
    words = ("run.checkpoint=none", "policy.action_normaliser=bounds", "policy.obs_normaliser=gaussian")
    words += ("curriculum.name=initial_states", "ppo.rollout=20", f"run.dir={tmp_path / 'hopper'}")
    finetuning.finetune(settings(tmp_path, *words))
    figures = read(tmp_path / "hopper")
    assert figures["curriculum/replayed"].max() > 0
    assert figures["curriculum/starts_score"][-1] > 1.0, "in units of the return"
    assert not [name for name in figures if "probability" in name], "Hopper has one variant"


def test_evaluation_takes_the_variants_in_turn_and_reports_each(folder: Path, tmp_path: Path) -> None:
    policy, _ = load_policy(folder / "bc")
    records = []
    for num_envs in (3, 5):
        config = peg(folder, f"evaluate.num_envs={num_envs}", "evaluate.episodes=7")
        records.append(evaluation.evaluate_policy(config, policy, name="x", folder=tmp_path, videos=False))
    assert records[0]["per_seed"] == records[1]["per_seed"]
    assert [row["variant"] for row in records[0]["per_seed"]] == ["wide", "snug"] * 3 + ["wide"]
    assert [(row["variant"], row["episodes"]) for row in records[0]["variants"]] == [("wide", 4), ("snug", 3)]
    mean = np.mean([row["return"] for row in records[0]["per_seed"] if row["variant"] == "snug"])
    assert records[0]["variants"][1]["return"]["mean"] == pytest.approx(mean)
    figures = evaluation.figures_of(records[0])
    assert figures["evaluation/variant/snug"] == records[0]["variants"][1]["success"]["mean"]


def test_an_evaluated_variant_is_the_environment_with_its_parameters(folder: Path, tmp_path: Path) -> None:
    policy, _ = load_policy(folder / "bc")
    mixed = evaluation.evaluate_policy(
        peg(folder, "evaluate.episodes=6"), policy, name="x", folder=tmp_path, videos=False
    )
    alone = evaluation.evaluate_policy(
        peg(folder, "evaluate.episodes=6", "env.params.variants=null", "env.params.clearance=0.001"),
        policy, name="x", folder=tmp_path, videos=False,
    )  # fmt: skip
    assert "variants" not in alone
    snug = [{k: v for k, v in row.items() if k != "variant"} for row in mixed["per_seed"] if row["variant"] == "snug"]
    assert snug == alone["per_seed"][1::2]


def test_demonstrations_are_of_all_variants(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Dataset.open(folder / "demos.zarr").num_episodes == 7
    seen: list[int] = []
    choose = evaluation.choose_variants

    def watched(env: BatchEnv, first: int = 0) -> None:
        seen.extend(env.variant.tolist())
        choose(env, first)

    monkeypatch.setattr("robo_rlft.training.collect.choose_variants", watched)
    path = f"data.path={folder / 'again.zarr'}"
    collect(peg(folder, f"collect.source={folder / 'scratch'}", "collect.episodes=12", "collect.num_envs=3", path))
    assert set(seen[3:]) == {0, 1}


def test_the_report_draws_the_choice_and_every_variant(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    finetuning.finetune(peg(folder, f"run.checkpoint={folder / 'bc'}", f"run.dir={run}", "run.eval_every=2"))
    policy, _ = load_policy(run)
    record = evaluation.evaluate_policy(peg(folder), policy, name="final", folder=run, videos=False)
    evaluation.write_record(run, record)
    page = report_for(run).read_text()
    for words in (
        "How often each variant is practised", "What is learned from each variant", "Each variant in evaluation",
        "final, wide", "final, snug",
    ):  # fmt: skip
        assert words in page
    assert json.loads((run / "evaluation" / "final.json").read_text())["variants"][0]["variant"] == "wide"


@pytest.mark.parametrize(
    ("fidelity", "name", "match"),
    [
        ("exact", "bandit", "chooses between variants, and Hopper has one"),
        ("drift", "initial_states", "restores with fidelity 'drift', not 'exact'"),
        ("none", "initial_states", "restores with fidelity 'none', not 'exact'"),
    ],
)
def test_environments_that_cannot_are_refused(fidelity: Any, name: str, match: str) -> None:
    env = make("Hopper", 1, threads=1)
    env.fidelity = fidelity
    with pytest.raises(ConfigError, match=match):
        Curriculum(env, CurriculumConfig(name=name), seed=0)


def test_a_success_that_no_task_defines_is_refused() -> None:
    with pytest.raises(ConfigError, match="Hopper defines no success"):
        Curriculum(make("Hopper", 1, threads=1), CurriculumConfig(name="initial_states", score="success"), seed=0)


@pytest.mark.parametrize("word", ["curriculum.name=bandits", "curriculum.alpha=0", "curriculum.temperature=0"])
def test_settings_that_cannot_be_meant_are_refused(word: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"curriculum\."):
        settings(tmp_path, word)
