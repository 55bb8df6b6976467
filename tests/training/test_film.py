"""Videos of evaluated episodes: which control steps they show, and how fast."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from robo_rlft.envs.mujoco.engine import MujocoEnv
from robo_rlft.policies import Policy
from robo_rlft.training import evaluate as evaluation
from robo_rlft.training.setup import make_env
from tests.training.loops import settings

STRIDE = 4
"""Of Hopper's 125 control steps a second: about 30 frames."""


def test_a_video_runs_in_real_time_at_about_thirty_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("policy.action_normaliser=bounds", "policy.obs_normaliser=none", "evaluate.videos=2")
    config = settings(tmp_path, "evaluate.episodes=2", *words)
    policy = Policy(config.policy, make_env(config, 1).robot)
    policy.fit_normaliser({})
    rendered: list[list[int]] = []

    def render(self: MujocoEnv, ids: list[int] | None = None, camera: str | None = None) -> np.ndarray:
        rendered.append(list(range(self.num_envs)) if ids is None else list(ids))
        return np.full((len(rendered[-1]), 32, 32, 3), 10 * len(rendered) % 256, np.uint8)

    monkeypatch.setattr(MujocoEnv, "render", render)
    names = evaluation.film(config, policy, tmp_path / "videos", "x")
    record = evaluation.evaluate_policy(config, policy, name="x", folder=tmp_path, videos=False)
    assert len(rendered) > 1
    assert rendered[0] == [0, 1]
    for name, episode in zip(names, record["per_seed"], strict=True):
        with av.open(str(tmp_path / name)) as file:
            stream = file.streams.video[0]
            assert float(stream.average_rate or 0) == pytest.approx(125 / STRIDE, rel=0.01)
            # The first state, every fourth one before the end, and half a second of rest on the last.
            expected = 1 + (episode["length"] - 1) // STRIDE + int(0.5 * 125 / STRIDE)
            assert sum(1 for _ in file.decode(stream)) == expected
