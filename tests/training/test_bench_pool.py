"""The bench of the pool runs, and counts what was really executed."""

from __future__ import annotations

from pathlib import Path

import pytest

from robo_rlft.errors import ConfigError
from robo_rlft.training.bench import pool


def test_rows_stand_beside_gymnasiums_own(tmp_path: Path) -> None:
    rows = pool.run(str(tmp_path / "rows.json"), envs=["gymnasium:Pendulum-v1"], workers=2, seconds=0.02)
    assert [row["name"] for row in rows] == ["gymnasium:Pendulum-v1/step", "gymnasium:Pendulum-v1/chunk"]
    for row in rows:
        assert row["value"] > 0
        assert row["peer_ratios"]["async"] == pytest.approx(row["value"] / row["detail"]["async"])


def test_measures_pools_only() -> None:
    with pytest.raises(ConfigError, match="one environment at a time"):
        pool.run(envs=["Hopper"], workers=2, seconds=0.02)
