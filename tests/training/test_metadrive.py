"""MetaDrive through every verb: demonstrations that arrived, cloning, group rollouts, evaluation with its figures."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

if find_spec("metadrive") is None:  # not imported here: its OpenGL would keep EGL from the tests after it
    pytest.skip("extra metadrive", allow_module_level=True)

from robo_rlft.data import Dataset
from robo_rlft.errors import ConfigError
from robo_rlft.training.collect import collect
from robo_rlft.training.configure import compose
from robo_rlft.training.evaluate import evaluate
from robo_rlft.training.finetune import finetune
from robo_rlft.training.pretrain import pretrain

WORDS = [
    "recipe=reinflow/metadrive", "env.params.map=S", "env.params.max_episode_steps=150", "env.num_envs=2",
    "data.path=drives.zarr", "collect.episodes=2", "collect.num_envs=2", "policy.network.hidden=[16]", "bc.steps=10",
    "bc.batch_size=16", "evaluate.episodes=2", "evaluate.num_envs=2", "evaluate.videos=1", "run.tensorboard=false",
    "ppo.iterations=1", "ppo.rollout=3", "ppo.minibatch=4", "ppo.epochs=1", "ppo.critic_warmup=0", "run.eval_every=0",
]  # fmt: skip


def test_from_an_expert_that_arrives_to_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = Dataset.open(collect(compose(WORDS)))
    episodes = [data.episode(i) for i in range(2)]
    assert all(e.success and e.terminated for e in episodes)
    assert all(set(e.observation) == {"policy"} for e in episodes), "nothing of the expert is among the observations"
    cloned = pretrain(compose([*WORDS, "run.dir=clone"]))
    grouped = ["ppo.advantage=group", "ppo.group=2", f"run.checkpoint={cloned}", "run.dir=tuned"]
    path = finetune(compose([*WORDS, *grouped]))
    record = evaluate(compose([*WORDS, f"run.checkpoint={path}"]))
    assert set(record["metrics"]) == {"arrive", "crash", "out_of_road", "max_step", "route_completion", "cost"}
    assert record["metrics"]["arrive"]["mean"] == record["success"]["mean"]
    assert len(record["videos"]) == 1
    assert json.loads((path / "evaluation" / "final.json").read_text())["metrics"] == record["metrics"]


def test_episodes_that_do_not_arrive_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = [*WORDS, "env.params.max_episode_steps=5", "collect.max_attempts=4"]
    with pytest.raises(ConfigError, match="kept 0 of 2 episodes in 4 attempts"):
        collect(compose(words))
