"""Environments of a pool go through every verb: metrics are averaged, instructions recorded, experts asked."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from robo_rlft.data import Dataset
from robo_rlft.envs import registry
from robo_rlft.envs.base import BatchEnv
from robo_rlft.envs.pool.env import PoolEnv
from robo_rlft.training.collect import collect
from robo_rlft.training.configure import compose
from robo_rlft.training.evaluate import evaluate
from robo_rlft.training.finetune import finetune
from robo_rlft.training.pretrain import pretrain

sys.path.insert(0, str(Path(__file__).parents[1] / "envs" / "pool"))
from toy_simulator import Toy


def make_toy(num_envs: int, *, seed: int | None, device: str, threads: int, dtype: torch.dtype) -> BatchEnv:
    return PoolEnv(Toy, num_envs, env_id="Toy", seed=seed, device=device, dtype=dtype, workers=0)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    registry.register("Toy", lambda: make_toy, "a point on a line")
    yield
    del registry._ENTRIES["Toy"]


def test_from_the_simulators_expert_to_a_measured_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = [
        "env.id=Toy", "env.num_envs=4", "data.path=toy.zarr", "collect.episodes=8", "collect.num_envs=4",
        "collect.keep=all", "policy.chunk=4", "policy.execute=2", "policy.network.hidden=[16]", "bc.steps=20",
        "bc.batch_size=16", "policy.chain.steps=2", "evaluate.episodes=6", "evaluate.num_envs=3", "evaluate.videos=1",
        "threads=1", "run.tensorboard=false",
    ]  # fmt: skip
    data = Dataset.open(collect(compose(words)))
    for episode in map(data.episode, range(8)):
        assert episode.task == ("go right" if episode.observation["policy"][0, 2] else "go left")
    assert set(data.episode(0).observation) == {"policy", "image/dot"}
    cloned = pretrain(compose([*words, "run.dir=clone"]))
    record = evaluate(compose([*words, f"run.checkpoint={cloned}"]))
    rows = [row["distance"] for row in record["per_seed"]]
    assert record["metrics"]["distance"]["mean"] == pytest.approx(sum(rows) / len(rows))
    assert min(rows) > 0.5
    tuned = [*words, f"run.checkpoint={cloned}", "run.dir=tuned", "policy.chain.name=reinflow", "ppo.iterations=2"]
    tuned += ["ppo.rollout=8", "ppo.minibatch=16", "ppo.epochs=1", "run.eval_every=0"]
    path = finetune(compose(tuned))
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert any("rollout/distance" in line for line in lines)
