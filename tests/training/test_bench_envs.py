"""The bench of the environments measures what it says it does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from robo_rlft import envs
from robo_rlft.envs.mujoco.engine import MujocoEnv
from robo_rlft.training.bench import envs as bench
from robo_rlft.training.bench.limit import replay
from robo_rlft.training.bench.peers import available, open_peer


def test_the_limit_replays_the_very_same_physics() -> None:
    env = envs.make("Walker2d", 3, seed=0, threads=1)
    assert isinstance(env, MujocoEnv)
    recording = bench._record(env, 0.02)
    seconds, after = replay(env.simulation.model, recording.states, env.task.frame_skip, threads=2)
    assert seconds > 0
    env.set_state(recording.start)
    for action in recording.actions:
        _, _, terminated, truncated, _ = env.step(action)
    going_on = ~(terminated | truncated).numpy()
    assert going_on.any()
    np.testing.assert_array_equal(after[going_on], env.simulation.state[going_on])


def test_states_of_another_model_are_refused() -> None:
    env = envs.make("Hopper", 1)
    assert isinstance(env, MujocoEnv)
    with pytest.raises(ValueError, match="states must be contiguous float64"):
        replay(env.simulation.model, np.zeros((1, 1, 3)), 1, 1)


def test_rows_say_what_was_measured(tmp_path: Path) -> None:
    rows = bench.run(str(tmp_path / "rows.json"), ["Hopper"], [2], seconds=0.01, with_peers=False)
    assert json.loads((tmp_path / "rows.json").read_text()) == rows
    assert [row["name"] for row in rows] == ["Hopper/step", "Hopper/chunk"]
    for row in rows:
        assert row.keys() >= {"name", "num_envs", "value", "unit", "limit_ratio", "peer_ratios"}
        assert row["limit_ratio"] == pytest.approx(row["value"] / row["detail"]["limit"])


def test_peers_step() -> None:
    for name in available(2):
        with open_peer(name, "Hopper", 2, threads=1) as step:
            obs = step(torch.zeros(2, 3).numpy())[0]  # pyright: ignore[reportIndexIssue]
        assert np.shape(obs) == (2, 11)
    assert "async" not in available(1024)
