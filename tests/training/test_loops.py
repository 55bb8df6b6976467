"""The loops of collect, pretrain, finetune and evaluate on a real environment."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from robo_rlft.data import Dataset
from robo_rlft.errors import CheckpointError, ConfigError, SpecError
from robo_rlft.training import evaluate as evaluation
from robo_rlft.training import finetune as finetuning
from robo_rlft.training import pretrain as pretraining
from robo_rlft.training.checkpoint import load_for
from robo_rlft.training.collect import collect
from robo_rlft.training.metrics import read
from robo_rlft.training.policies import load_policy
from tests.training.loops import settings


class StoppedError(Exception):
    """Stands for a kill in the middle of a run."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an untrained policy from scratch, its data set, and a policy cloned from that."""
    path = tmp_path_factory.mktemp("loops")
    scratch = settings(
        path, "run.checkpoint=none", "policy.action_normaliser=bounds", "policy.obs_normaliser=gaussian",
        "ppo.iterations=1", f"run.dir={path / 'scratch'}",
    )  # fmt: skip
    finetuning.finetune(scratch)
    collect(settings(path, f"collect.source={path / 'scratch'}", "collect.episodes=10"))
    pretraining.pretrain(settings(path, f"run.dir={path / 'bc'}"))
    return path


def weights(run: Path) -> dict[str, torch.Tensor]:
    return {f"{p}/{k}": v for p, part in load_for(run).weights.items() for k, v in part.items()}


def assert_same_run(one: Path, two: Path) -> None:
    left, right = weights(one), weights(two)
    assert left.keys() == right.keys()
    for key, value in left.items():
        assert torch.equal(value, right[key]), key
    rows, others = read(one), read(two)
    for name in rows:
        if not name.startswith(("time/", "rate/", "wall")):
            np.testing.assert_array_equal(rows[name], others[name], err_msg=name)


def test_recorded_episodes_hold_one_observation_more_than_actions(folder: Path) -> None:
    dataset = Dataset.open(folder / "demos.zarr")
    assert dataset.num_episodes == 10
    for i in range(10):
        episode = dataset.episode(i)
        steps = len(episode.action)
        assert len(episode.observation["policy"]) == steps + 1
        assert episode.terminated != episode.truncated
        # Hopper pays 1 for being healthy in every step but the one that ends the episode.
        assert episode.reward.shape == (steps,)
        assert (np.abs(episode.action) <= 1).all()


def test_recorded_actions_lead_from_each_observation_to_the_next(folder: Path) -> None:
    """Replaying an episode from its first observation gives the recorded ones: nothing is shifted by a step."""
    import gymnasium

    episode = Dataset.open(folder / "demos.zarr").episode(3)
    env = gymnasium.make("Hopper-v5").unwrapped
    env.reset(seed=0)
    seen = episode.observation["policy"].astype(np.float64)
    # The x position is not observed and does not matter to the dynamics.
    env.set_state(np.concatenate([[0.0], seen[0, :5]]), seen[0, 5:])  # type: ignore[attr-defined]
    for t in range(5):
        obs, reward, *_ = env.step(episode.action[t])
        np.testing.assert_allclose(obs, seen[t + 1], atol=2e-3)
        assert float(reward) == pytest.approx(float(episode.reward[t]), abs=2e-3)


def test_ratio_is_one_before_the_first_gradient_step_of_every_round(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    finetuning.finetune(settings(folder, f"run.dir={run}", f"run.checkpoint={folder / 'bc'}"))
    errors = read(run)["ppo/first_ratio_error"]
    assert len(errors) == 4
    assert errors.max() <= 1e-5
    assert read(run)["ppo/kl"].max() > 0, "the policy did not move at all"


@pytest.mark.parametrize("rounds", [0, 2])
def test_finetuning_that_was_cut_off_ends_in_the_same_bits(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rounds: int
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    start = f"run.checkpoint={folder / 'bc'}"
    finetuning.finetune(settings(folder, start, f"run.dir={whole}", "ppo.bc_coef=0.1"))
    iterate = finetuning.FineTuner.iterate

    def stop_after(trainer: finetuning.FineTuner) -> dict[str, float]:
        if trainer.iteration == rounds:
            # The round that is lost has written its figures already when the kill comes before the checkpoint.
            trainer.run.metrics.write(trainer.env_steps + 1, {"rollout/return": 1.0}, wall=0.0)
            raise StoppedError
        return iterate(trainer)

    monkeypatch.setattr(finetuning.FineTuner, "iterate", stop_after)
    again = settings(folder, start, f"run.dir={cut}", "ppo.bc_coef=0.1")
    with pytest.raises(StoppedError):
        finetuning.finetune(again)
    monkeypatch.undo()
    finetuning.finetune(again)
    assert_same_run(whole, cut)


@pytest.mark.parametrize("updates", [7, 37])
def test_cloning_that_was_cut_off_ends_in_the_same_bits(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, updates: int
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    pretraining.pretrain(settings(folder, f"run.dir={whole}"))
    original = pretraining.Cloner._update

    def stop_after(cloner: pretraining.Cloner, batches: object) -> torch.Tensor:
        if cloner.step == updates:
            cloner._save()
            raise StoppedError
        return original(cloner, batches)  # type: ignore[arg-type]

    monkeypatch.setattr(pretraining.Cloner, "_update", stop_after)
    with pytest.raises(StoppedError):
        pretraining.pretrain(settings(folder, f"run.dir={cut}"))
    monkeypatch.undo()
    pretraining.pretrain(settings(folder, f"run.dir={cut}"))
    left, right = weights(whole), weights(cut)
    assert all(torch.equal(left[k], right[k]) for k in left)


def test_a_finished_run_is_left_alone(folder: Path) -> None:
    before = (folder / "bc" / "metrics.jsonl").read_bytes()
    pretraining.pretrain(settings(folder, f"run.dir={folder / 'bc'}"))
    assert (folder / "bc" / "metrics.jsonl").read_bytes() == before


def test_cloning_lowers_the_loss_and_keeps_the_averaged_weights(folder: Path) -> None:
    loss = read(folder / "bc")["bc/loss"]
    assert np.isfinite(loss).all()
    checkpoint = load_for(folder / "bc")
    averaged, trained = checkpoint.weights["policy"], checkpoint.weights["trained"]
    assert any(not torch.equal(averaged[k], trained[k]) for k in averaged)
    assert checkpoint.meta["ema"] is True


def test_critic_warm_up_leaves_the_actor_as_it_was(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = (f"run.dir={run}", f"run.checkpoint={folder / 'bc'}", "ppo.critic_warmup=4")
    finetuning.finetune(settings(folder, *words))
    before, after = load_for(folder / "bc").weights["policy"], load_for(run).weights["policy"]
    assert all(torch.equal(before[k], after[k]) for k in before if k.startswith("network."))


def test_evaluation_depends_on_seeds_alone(folder: Path) -> None:
    """The same episodes whether three or five environments share the work."""
    policy, _ = load_policy(folder / "bc")
    records = []
    for num_envs in (3, 5):
        config = settings(folder, f"evaluate.num_envs={num_envs}")
        records.append(evaluation.evaluate_policy(config, policy, name="x", folder=folder, videos=False))
    assert records[0]["per_seed"] == records[1]["per_seed"]
    assert [row["seed"] for row in records[0]["per_seed"]] == list(range(1_000_000, 1_000_005))
    mean = np.mean([row["return"] for row in records[0]["per_seed"]])
    assert records[0]["return"]["mean"] == pytest.approx(mean)
    assert records[0]["success"] is None, "Hopper defines no success"


def test_evaluated_returns_are_those_of_gymnasium(folder: Path) -> None:
    """One episode step by step in Gymnasium's own environment with the policy's actions."""
    import gymnasium

    from robo_rlft.noise import episode_noise

    policy, _ = load_policy(folder / "bc")
    config = settings(folder, "evaluate.episodes=1", "evaluate.num_envs=1")
    record = evaluation.evaluate_policy(config, policy, name="x", folder=folder, videos=False)
    act = evaluation.actor_of(policy)
    env = gymnasium.make("Hopper-v5")
    obs, _ = env.reset(seed=1_000_000)
    total, steps, chunk, done = 0.0, 0, 0, False
    while not done:
        frames = {"policy": torch.from_numpy(obs).float()[None, None]}
        noise = torch.from_numpy(episode_noise(1_000_000, chunk, policy.event))[None]
        for action in act(frames, noise)[0]:
            obs, reward, terminated, truncated, _ = env.step(action.numpy())
            total, steps, done = total + float(reward), steps + 1, terminated or truncated
            if done:
                break
        chunk += 1
    assert record["per_seed"][0]["length"] == steps
    assert record["per_seed"][0]["return"] == pytest.approx(total, rel=1e-3)


def test_settings_that_contradict_the_checkpoint_name_both_values(folder: Path, tmp_path: Path) -> None:
    words = (f"run.dir={tmp_path / 'run'}", f"run.checkpoint={folder / 'bc'}", "policy.chunk=6")
    with pytest.raises(CheckpointError, match=r"policy\.chunk=6 .*policy\.chunk=4"):
        finetuning.finetune(settings(folder, *words))


def test_a_policy_of_another_robot_is_refused(folder: Path, tmp_path: Path) -> None:
    words = (f"run.dir={tmp_path / 'run'}", f"run.checkpoint={folder / 'bc'}", "env.id=HalfCheetah")
    with pytest.raises(SpecError, match="observation 'policy'"):
        finetuning.finetune(settings(folder, *words))


def test_a_deterministic_chain_cannot_be_fine_tuned(folder: Path, tmp_path: Path) -> None:
    words = (f"run.dir={tmp_path / 'run'}", f"run.checkpoint={folder / 'bc'}", "policy.chain.name=euler")
    with pytest.raises(ConfigError, match="reinflow"):
        finetuning.finetune(settings(folder, *words))


def test_too_few_successes_end_a_collection(folder: Path, tmp_path: Path) -> None:
    words = (f"collect.source={folder / 'scratch'}", "collect.keep=success", "collect.episodes=2")
    config = settings(folder, *words, "collect.max_attempts=3", f"data.path={tmp_path / 'none.zarr'}")
    with pytest.raises(ConfigError, match=r"collect\.max_attempts"):
        collect(config)


def test_a_task_without_success_is_summed_up_by_its_return(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "told.zarr"
    words = (f"collect.source={folder / 'scratch'}", "collect.episodes=4", "collect.num_envs=1")
    collect(settings(folder, *words, f"data.path={path}"))
    told = " ".join(capsys.readouterr().out.split())
    found = re.search(r"reached a mean return of ([\d,-]+) in 4", told)
    assert found, told
    assert "succeeded" not in told
    data = Dataset.open(path)
    assert float(found[1].replace(",", "")) == pytest.approx(float(data.reward.sum()) / 4, abs=0.6)


def test_group_relative_rounds_fork_and_learn_without_a_critic(folder: Path, tmp_path: Path) -> None:
    words = (f"run.dir={tmp_path / 'run'}", f"run.checkpoint={folder / 'bc'}", "ppo.advantage=group", "ppo.group=2")
    config = settings(folder, *words)
    finetuning.finetune(config)
    figures = read(tmp_path / "run")
    assert figures["ppo/first_ratio_error"].max() <= 1e-5
    assert figures["ppo/actor_grad_norm"].max() > 0
    assert "ppo/critic_loss" not in figures


def test_forked_rows_start_alike_and_part_by_their_noise(folder: Path, tmp_path: Path) -> None:
    config = settings(folder, f"run.dir={tmp_path / 'run'}", f"run.checkpoint={folder / 'bc'}")
    with finetuning.Run.open(tmp_path / "run", config, verb="finetune") as run:
        trainer = finetuning.FineTuner(config, run)
        collector = trainer.collector
        collector.collect(trainer.learner.policy, 2)
        collector.fork(2)
        for value in (collector.obs["policy"], collector.history.frames["policy"], collector.returns):
            assert torch.equal(value[0::2], value[1::2])
        assert not torch.equal(collector.obs["policy"][0], collector.obs["policy"][2])
        rollout = collector.collect(trainer.learner.policy, 1)
        assert torch.equal(rollout.obs["policy"][0], rollout.obs["policy"][1])
        assert not torch.equal(rollout.path.action[0], rollout.path.action[1])
        trainer.env.close()
