"""The bench beside ManiSkill's own vector environment."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("mani_skill", reason="extra maniskill")

from robo_rlft.training.bench.envs import run


@pytest.mark.slow
def test_a_row_each_for_steps_and_chunks(tmp_path: Path) -> None:
    rows = run(str(tmp_path / "rows.json"), ["maniskill:MS-CartpoleBalance-v1"], [2], seconds=0.05, threads=1)
    assert [row["name"].rpartition("/")[2] for row in rows] == ["step", "chunk"]
    for row in rows:
        assert row["value"] > 0
        assert row["peer_ratios"]["async"] > 0
        assert row["detail"]["async_per_cpu_second"] > 0
