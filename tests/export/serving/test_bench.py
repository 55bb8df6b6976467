from __future__ import annotations

import json
from pathlib import Path

import pytest

from robo_rlft.export.serving import bench


@pytest.mark.slow
def test_every_case_has_its_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = bench.run(tmp_path / "rows.json", seconds=0.25, clients=(2,))
    named = [(row.name, row.num_envs) for row in rows]
    cases = [(f"{case}{how}", 2) for case in ("state", "images") for how in ("", " one by one")]
    assert named == [("inference alone", 0), *cases]
    for row in rows:
        figures = row.detail
        assert row.value > 0
        assert 0 < figures["p50_us"] <= figures["p99_us"] <= figures["p99.9_us"] <= figures["max_us"]
        assert figures["server_cpu_us"] >= 0
    assert rows[1].limit_ratio == pytest.approx(rows[1].value / rows[0].value)
    assert len(json.loads((tmp_path / "rows.json").read_text())) == len(rows)
    assert "images one by one" in capsys.readouterr().out
