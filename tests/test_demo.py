"""The whole way in one command, in small: every stage, the summary, and a second call."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from robo_rlft import demo
from robo_rlft.training.configure import compose

SMALL = (
    "recipe=reinflow/arm_peg_insert",
    "collect.episodes=12",
    "collect.num_envs=12",
    "policy.network.hidden=[32]",
    "bc.steps=100",
    "env.num_envs=8",
    "env.threads=1",
    "ppo.iterations=2",
    "ppo.minibatch=40",
    "ppo.critic_hidden=[16]",
    "run.eval_every=0",
    "run.tensorboard=false",
    "evaluate.episodes=8",
    "evaluate.num_envs=8",
    "evaluate.videos=0",
)


@pytest.mark.slow
def test_demo_leaves_its_summary_and_repeats_nothing(tmp_path: Path) -> None:
    config = compose(SMALL)
    summary = demo.demo(config, home=tmp_path / "demo")
    assert summary == json.loads((tmp_path / "demo" / "summary.json").read_text())
    for name in ("pretrained", "bc_longer", "finetuned", "controller"):
        low, high = summary[name]["ci95"]
        assert 0 <= low <= summary[name]["success"] <= high <= 1
    assert summary["controller"]["success"] == summary["finetuned"]["success"], "export changed what the policy does"
    assert summary["episodes"] == 8
    assert 0 < summary["env_steps"] <= 2 * 8 * 10 * 8
    assert Path(summary["report"]).is_file()
    # Longer cloning gets the fine-tuning's wall time, not less.
    spent, given = (
        json.loads((tmp_path / "demo" / f / "finished.json").read_text()) for f in ("finetune", "bc_longer")
    )
    assert given["wall_seconds"] >= round(spent["wall_seconds"], 1)

    runs = [tmp_path / "demo" / folder / "metrics.jsonl" for folder in ("pretrain", "finetune", "bc_longer")]
    before = [run.read_bytes() for run in runs]
    again = demo.demo(config, home=tmp_path / "demo")
    assert [run.read_bytes() for run in runs] == before, "a finished stage ran again"
    assert {k: again[k] for k in ("pretrained", "finetuned", "env_steps")} == {
        k: summary[k] for k in ("pretrained", "finetuned", "env_steps")
    }
