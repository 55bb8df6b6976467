"""The bench of the tasks on JAX plays the same chunks on both engines and says what it measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("jax", reason="extra mjx")
pytest.importorskip("mujoco.mjx", reason="extra mjx")

from robo_rlft.envs import register, registry
from robo_rlft.errors import ConfigError
from robo_rlft.training.bench import mjx as bench


@pytest.fixture
def _cart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[1] / "envs" / "mjx"), *sys.path])
    register("Cart", "mjx_toys:CART_TASK", "a cart")


@pytest.mark.usefixtures("_cart")
def test_rows_say_what_was_measured(tmp_path: Path) -> None:
    rows = bench.run(str(tmp_path / "mjx.json"), envs=["mjx:Cart"], num_envs=[3], seconds=0.01, threads=1)
    assert json.loads((tmp_path / "mjx.json").read_text()) == rows
    (row,) = rows
    assert (row["name"], row["num_envs"], row["unit"]) == ("Cart/cpu", 3, "env-steps/s")
    assert row["peer_ratios"]["CPU engine"] == pytest.approx(row["value"] / row["detail"]["cpu_engine"])
    seconds_per_chunk = 3 * bench.CHUNK / row["value"]
    assert row["detail"]["first_call_seconds"] > 10 * seconds_per_chunk  # it compiled, the rounds did not


def test_knows_the_registered_tasks_of_its_list_only() -> None:
    assert bench.known_tasks()[:3] == ["Hopper", "Ant", "Humanoid"]
    with pytest.raises(ConfigError, match="unknown MuJoCo task"):
        bench.run(envs=["Nowhere"], num_envs=[1])
