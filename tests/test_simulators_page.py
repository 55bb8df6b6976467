"""docs/results/simulators.md: one row per recipe of a simulator, measured or not."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))  # The benchmarks are run from the checkout; they are no part of the installed package.

from benchmarks import record, results  # noqa: E402
from benchmarks.page_simulators import CURRICULUM, ROWS, simulators_page  # noqa: E402
from benchmarks.records import Records  # noqa: E402
from robo_rlft.training.configure import compose  # noqa: E402
from tests.recorded import make_run  # noqa: E402


def row(page: str, *first: str) -> list[str]:
    line = next(line for line in page.splitlines() if line.startswith(f"| {' | '.join(first)} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_seeds_are_pooled_and_clones_are_the_start(tmp_path: Path) -> None:
    recipe, kept = "reinflow/metadrive", tmp_path / "records" / "sim_metadrive"
    for seed in range(3):
        clone = make_run(tmp_path / f"a/pretrain-seed{seed}", "pretrain", 200.0 + 10 * seed, seed, recipe=recipe)
        run = make_run(tmp_path / f"b/finetune-seed{seed}", "finetune", 300.0, seed, str(clone), recipe=recipe)
        record.record_runs([clone, run], kept)
    page, pictures = simulators_page(Records.load(tmp_path / "records").tasks)
    half = 4.302653 * 10 / np.sqrt(3)
    cells = row(page, "MetaDrive", "metadrive:Procedural")
    assert cells[2:6] == ["BC, then ReinFlow", "3", f"210 [{210 - half:.0f}, {210 + half:.0f}]", "300 [300, 300]"]
    assert list(pictures) == ["sim_metadrive-steps.svg"]
    assert "robo-rlft finetune recipe=reinflow/metadrive seed=${seed}" in page


def test_cloning_alone_is_an_end_without_a_start(tmp_path: Path) -> None:
    run = make_run(tmp_path / "pretrain-seed0", "pretrain", 120.0, recipe="bc/libero")
    record.record_runs([run], tmp_path / "records" / "sim_libero")
    page, pictures = simulators_page(Records.load(tmp_path / "records").tasks)
    assert row(page, "LIBERO", "libero:libero_object/6")[2:5] == ["BC", "1", "120 [110, 130]"]
    assert pictures == {}


def test_what_is_missing_is_called_so_and_its_recipe_exists() -> None:
    page, _ = simulators_page({})
    for entry in ROWS:
        assert row(page, entry.simulator, f"`{entry.recipe}`")[-1] == "Not measured yet"
    for recipe in {entry.recipe for entry in (*ROWS, *CURRICULUM)}:
        compose([f"recipe={recipe}"])


def test_other_pages_leave_these_records_alone(tmp_path: Path) -> None:
    run = make_run(tmp_path / "finetune-seed0", "finetune", 300.0, recipe="reinflow/metadrive")
    record.record_runs([run], tmp_path / "records" / "sim_metadrive")
    pages = results.pages(Records.load(tmp_path / "records"))
    assert "reinflow/metadrive" in pages["simulators.md"]
    assert "metadrive" not in pages["learning.md"] + pages["online.md"]
