"""A critic of a frozen policy is learned, resumed and used by evaluations and sweeps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from robo_rlft.envs.base import ChunkResult
from robo_rlft.errors import CheckpointError, ConfigError
from robo_rlft.export.bundle import export
from robo_rlft.training import critic_rounds
from robo_rlft.training import evaluate as evaluation
from robo_rlft.training.checkpoint import load_for
from robo_rlft.training.collect import collect
from robo_rlft.training.config import Config
from robo_rlft.training.configure import compose
from robo_rlft.training.finetune import finetune
from robo_rlft.training.metrics import read
from robo_rlft.training.paths import acting_path, source_path
from robo_rlft.training.policies import adapted_policy
from robo_rlft.training.pretrain import pretrain
from robo_rlft.training.report import REPORT, sweep_charts
from robo_rlft.training.rollout import History
from robo_rlft.training.sweep import parse, sweep
from tests.training.loops import settings

CRITIC = (
    "algorithm=chunk_critic",
    "critic.rounds=3",
    "critic.rollout=5",
    "critic.updates=4",
    "critic.minibatch=16",
    "critic.hidden=[8]",
    "critic.validation=0.25",
)


class StoppedError(Exception):
    """Stands for a kill in the middle of a run."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a cloned policy, `bc`, and a run that learned its critic, `judged`."""
    path = tmp_path_factory.mktemp("search")
    words = ("run.checkpoint=none", "policy.action_normaliser=bounds", "policy.obs_normaliser=gaussian")
    finetune(settings(path, *words, "ppo.iterations=1", f"run.dir={path / 'scratch'}"))
    collect(settings(path, f"collect.source={path / 'scratch'}", "collect.episodes=4"))
    pretrain(settings(path, f"run.dir={path / 'bc'}"))
    finetune(judging(path, path / "judged", "run.eval_every=2", "run.eval_episodes=4", "evaluate.candidates=2"))
    return path


def judging(folder: Path, run: Path, *words: str) -> Config:
    return settings(folder, *CRITIC, f"run.checkpoint={folder / 'bc'}", f"run.dir={run}", *words, verb="finetune")


def record(run: Path, *words: str) -> dict:
    config = settings(run.parent, f"run.checkpoint={run}", *words)
    policy, _ = adapted_policy(config, run)
    return evaluation.evaluate_policy(config, policy, name="x", folder=run, videos=False)


def returns(run: Path, *words: str) -> list[float]:
    return [row["return"] for row in record(run, *words)["per_seed"]]


def test_the_policy_stays_as_it_is(folder: Path) -> None:
    before, after = load_for(folder / "bc").weights["policy"], load_for(folder / "judged").weights["policy"]
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert returns(folder / "judged") == returns(folder / "bc")


def test_its_figures_are_in_the_metrics_and_the_report(folder: Path) -> None:
    rows = read(folder / "judged")
    for key in ("critic/loss", "critic/explained_variance", "critic/ranking", "rollout/episodes", "evaluation/score"):
        assert np.isfinite(rows[key]).any(), key
    assert "ranking" in (folder / "judged" / REPORT).read_text()
    counted = json.loads((folder / "judged/evaluation/training-000002.json").read_bytes())["network_calls"]
    assert counted == {"velocity": 2 + 2, "critic": 2 * 2}


@pytest.mark.parametrize("rounds", [0, 2])
def test_a_run_that_was_cut_off_ends_in_the_same_bits(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rounds: int
) -> None:
    finetune(judging(folder, tmp_path / "whole"))
    iterate = critic_rounds.CriticTrainer.iterate

    def stop_after(trainer: critic_rounds.CriticTrainer) -> dict[str, float]:
        if trainer.round == rounds:
            trainer.run.metrics.write(trainer.env_steps + 1, {"rollout/return": 1.0}, wall=0.0)
            raise StoppedError
        return iterate(trainer)

    monkeypatch.setattr(critic_rounds.CriticTrainer, "iterate", stop_after)
    with pytest.raises(StoppedError):
        finetune(judging(folder, tmp_path / "cut"))
    monkeypatch.undo()
    finetune(judging(folder, tmp_path / "cut"))
    left, right = (load_for(tmp_path / name) for name in ("whole", "cut"))
    for key, value in left.weights["chunk_critic"].items():
        assert torch.equal(value, right.weights["chunk_critic"][key]), key
    for key, value in left.state["experience"].items():
        assert torch.equal(value, right.state["experience"][key]), key
    one, two = read(tmp_path / "whole"), read(tmp_path / "cut")
    for key in (k for k in one if not k.startswith(("time/", "rate/", "wall"))):
        np.testing.assert_array_equal(one[key], two[key], err_msg=key)


def test_a_search_of_one_is_the_policy(folder: Path) -> None:
    run = folder / "judged"
    assert returns(run, "evaluate.best_of=1") == returns(run)
    assert returns(run, "evaluate.best_of=4") != returns(run)
    drawn = returns(run, "evaluate.candidates=1")
    assert drawn != returns(run)
    assert drawn == returns(run, "evaluate.candidates=1", "evaluate.alpha=2.0")


@pytest.mark.parametrize("words", [("evaluate.candidates=3", "evaluate.alpha=0.5"), ("evaluate.best_of=4",)])
def test_a_search_depends_on_seeds_alone(folder: Path, words: tuple[str, ...]) -> None:
    """The same candidates whether three or five environments share the work."""
    three, five = (returns(folder / "judged", *words, f"evaluate.num_envs={n}") for n in (3, 5))
    assert three == pytest.approx(five, rel=1e-3)


def test_records_count_the_calls_of_networks(folder: Path) -> None:
    run, tuned = folder / "judged", folder / "tuned"
    finetune(settings(folder, f"run.checkpoint={folder / 'bc'}", "ppo.iterations=1", f"run.dir={tuned}"))
    expected = {
        (run, ""): (2, 0),
        (run, "evaluate.steps=5"): (5, 0),
        (tuned, "evaluate.guidance=1.5"): (2 * 2, 0),
        (run, "evaluate.candidates=3"): (2 + 3, 2 * 3),
        (run, "evaluate.best_of=6"): (6 * 2, 6),
    }
    for (where, word), (velocity, critic) in expected.items():
        assert record(where, *filter(None, [word]))["network_calls"] == {"velocity": velocity, "critic": critic}


@pytest.mark.parametrize(
    ("words", "costs"),
    [("evaluate.best_of=4,1", [2, 12]), ("evaluate.candidates=1,2", [2, 8]), ("evaluate.steps=1,2", [3 + 0, 4 + 4])],
)
def test_sweeps_show_score_and_cost(folder: Path, words: str, costs: list[int]) -> None:
    run = folder / "judged"
    searched = ("evaluate.candidates=2",) if "best_of" not in words else ("evaluate.candidates=5",)
    sweep(settings(folder, f"run.checkpoint={run}", *searched), *parse(words))
    name = words.split("=")[0].split(".")[1]
    by_value, by_cost = (chart.series[0] for chart in sweep_charts(run / f"sweeps/{name}.json"))
    assert by_cost.x.tolist() == costs
    assert by_value.y.tolist() == by_cost.y.tolist()
    page = (run / REPORT).read_text()
    assert f"Return over {name}" in page
    assert f"Return over the cost of {name}" in page


def test_the_temperature_is_swept_at_one_cost(folder: Path) -> None:
    run = folder / "judged"
    sweep(settings(folder, f"run.checkpoint={run}", "evaluate.candidates=2"), *parse("evaluate.alpha=0,1"))
    (only,) = sweep_charts(run / "sweeps/alpha.json")
    assert only.series[0].x.tolist() == [0.0, 1.0]
    with pytest.raises(ConfigError, match=r"set evaluate\.candidates"):
        sweep(settings(folder, f"run.checkpoint={run}"), *parse("evaluate.alpha=0,1"))


def test_a_run_without_a_critic_may_borrow_one(folder: Path) -> None:
    bc = folder / "bc"
    with pytest.raises(CheckpointError, match=r"has no critic of chunks.*evaluate\.critic=RUN"):
        record(bc, "evaluate.best_of=2")
    borrowed = returns(bc, "evaluate.best_of=2", f"evaluate.critic={folder / 'judged'}")
    assert borrowed == returns(folder / "judged", "evaluate.best_of=2")
    words = ("evaluate.best_of=2", f"evaluate.critic={folder / 'judged'}")
    with pytest.raises(ConfigError, match="normalise differently"):
        record(folder / "scratch", *words)


def test_ways_of_acting_exclude_each_other(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"evaluate\.candidates=4 and evaluate\.best_of=8 exclude each other"):
        settings(folder, "evaluate.candidates=4", "evaluate.best_of=8")
    with pytest.raises(ConfigError, match=r"evaluate\.guidance=0 and evaluate\.candidates=4"):
        settings(folder, "evaluate.candidates=4", "evaluate.guidance=0.0")


def test_a_search_is_not_exported(folder: Path, tmp_path: Path) -> None:
    words = (f"run.checkpoint={folder / 'judged'}", f"export.dir={tmp_path / 'bundle'}")
    with pytest.raises(ConfigError, match=r"export the policy alone with evaluate\.candidates=0"):
        export(settings(folder, *words, "evaluate.best_of=2"))
    assert not (tmp_path / "bundle").exists()


def test_too_few_environments_to_hold_one_out_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="at least one must be held out"):
        judging(folder, folder / "none", "critic.validation=0.05")


def test_what_would_be_seen_after_a_chunk_is_the_episodes_own() -> None:
    """Two observations of history; the second episode ends in the second of three steps, and a new one begins at 90."""
    history = History(2, ["policy"])
    history.start({"policy": torch.tensor([[0.0], [10.0]])})
    trace = torch.tensor([[0.0, 1.0, 2.0, 3.0], [10.0, 11.0, 12.0, 12.0]])[..., None]
    ended, cut = torch.tensor([False, True]), torch.tensor([False, False])
    result = ChunkResult(
        obs={"policy": torch.tensor([[3.0], [90.0]])}, reward=torch.zeros(2, 3), terminated=ended, truncated=cut,
        length=torch.tensor([3, 2]), final_obs={"policy": trace[:, -1]}, success=ended, trace={"policy": trace},
    )  # fmt: skip
    assert history.after(result)["policy"].flatten(1).tolist() == [[2.0, 3.0], [11.0, 12.0]]
    history.push(result)
    assert history.frames["policy"].flatten(1).tolist() == [[2.0, 3.0], [90.0, 90.0]]
    single = History(1, ["policy"])
    single.start(result.obs)
    assert single.after(result)["policy"].flatten().tolist() == [3.0, 12.0]


def test_a_recipe_finds_what_it_builds_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own runs, once there are some; until then those of the recipe it names."""
    monkeypatch.chdir(tmp_path)
    svdd, rlg = (compose([f"recipe={method}/hopper", "seed=3"]) for method in ("svdd", "rlg"))
    assert source_path(svdd) == Path("runs/reinflow/hopper/pretrain-seed3")
    assert acting_path(rlg) == Path("runs/reinflow/hopper/finetune-seed3")
    for place in ("svdd/hopper/pretrain-seed3", "rlg/hopper/finetune-seed3"):
        (tmp_path / "runs" / place).mkdir(parents=True)
    assert source_path(svdd) == Path("runs/svdd/hopper/pretrain-seed3")
    assert acting_path(rlg) == Path("runs/rlg/hopper/finetune-seed3")
