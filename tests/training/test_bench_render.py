"""The bench of rendering measures what it says it does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from robo_rlft.envs import registry
from robo_rlft.envs.mujoco.tasks import hopper
from robo_rlft.errors import ConfigError
from robo_rlft.training.bench import render


def test_rows_say_what_was_measured(opengl: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "ROUNDS", 1)
    monkeypatch.setattr(render, "_IMAGES", 2)
    rows = render.run(tmp_path / "rows.json", "ArmPegInsert", [16], [2])
    assert json.loads((tmp_path / "rows.json").read_text()) == rows
    assert [(row["name"], row["num_envs"]) for row in rows] == [("ArmPegInsert/16x16", 2)]
    assert rows[0]["limit_ratio"] == pytest.approx(rows[0]["value"] / rows[0]["detail"]["limit"])


def test_a_task_without_cameras_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    blind = replace(hopper.TASK, cameras=())
    monkeypatch.setitem(registry._ENTRIES, "Hopper", registry.Entry("Hopper", "", lambda: blind))
    with pytest.raises(ConfigError, match="cameras"):
        render.run(env_id="Hopper", sizes=[8], num_envs=[1])
