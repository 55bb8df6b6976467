"""docs/results/online.md: the online methods side by side."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))  # The benchmarks are run from the checkout; they are no part of the installed package.

from benchmarks import record, results  # noqa: E402
from benchmarks.online import METHODS, TASKS, Entry, entries  # noqa: E402
from benchmarks.page_learning import commands_of, read_published  # noqa: E402
from benchmarks.page_online import online_page  # noqa: E402
from benchmarks.records import Records  # noqa: E402
from robo_rlft.errors import RunError  # noqa: E402
from tests.recorded import dump, make_run  # noqa: E402


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """ReinFlow 1400, 1500, 1600 -> 3100, 3200, 3300; Flow-SDE, one seed of these clones; DPPO on its own clones."""
    kept = tmp_path / "records"
    clones = [
        make_run(tmp_path / f"reinflow/pretrain-seed{seed}", "pretrain", 1400.0 + 100 * seed, seed) for seed in range(3)
    ]
    for seed, clone in enumerate(clones):
        run = make_run(tmp_path / f"finetune-seed{seed}", "finetune", 3100.0 + 100 * seed, seed, str(clone))
        record.record_runs([clone, run], kept / "hopper")
    sde = tmp_path / "flow_sde/finetune-seed1"
    make_run(sde, "finetune", 3000.0, 1, str(clones[1]), recipe="flow_sde/hopper")
    record.record_runs([sde], kept / "flow_sde_hopper")
    for seed, end in enumerate((1400.0, 900.0)):
        clone = make_run(tmp_path / f"dppo/pretrain-seed{seed}", "pretrain", 1000.0, seed, recipe="dppo/hopper")
        run = make_run(tmp_path / f"dppo/finetune-seed{seed}", "finetune", end, seed, str(clone), recipe="dppo/hopper")
        record.record_runs([clone, run], kept / "dppo_hopper")
    return kept


def page_of(records: Path) -> str:
    return online_page(Records.load(records).tasks, read_published())[0]


def found(records: Path) -> dict[tuple[str, str], Entry]:
    return {(e.method.key, e.task): e for e in entries(Records.load(records).tasks)}


def row(page: str, *first: str) -> list[str]:
    line = next(line for line in page.splitlines() if line.startswith(f"| {' | '.join(first)} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_row_shows_start_end_gain_cost_and_network_calls(records: Path) -> None:
    page = page_of(records)
    half = 4.302653 * 100 / np.sqrt(3)
    ours = row(page, "ReinFlow", "Hopper")
    assert ours[2] == "3"
    assert ours[3:5] == [f"{mean:,} [{mean - half:,.0f}, {mean + half:,.0f}]" for mean in (1500, 3200)]
    assert ours[5:7] == ["1,700 [1,700, 1,700]", "1,432 → 3,205"], "paired: every seed gains 1,700"
    update = (13 * 3 + 12 * 1) / 25
    assert ours[7:] == ["409,600", "1 h 06 min", f"{0.75 + update:.2f}", "4", "4 x 8"]
    assert row(page, "Flow-SDE", "Hopper")[10:] == ["4", "1 x 8"], "one random step per chunk"
    assert row(page, "DPPO", "Hopper")[10:] == ["20", "10 x 8"], "the last ten of twenty steps"
    assert row(page, "DPPO", "Hopper")[6] == "1,413 → 3,281"


def test_the_start_is_the_clone_that_the_run_names(records: Path) -> None:
    """Flow-SDE began with ReinFlow's clone of seed 1, whose evaluation stands in another record."""
    entry = found(records)["flow_sde", "hopper"]
    assert entry.start is not None
    assert entry.start.mean == 1500.0


def test_a_gain_is_significant_where_its_interval_says_so(records: Path) -> None:
    entry = found(records)
    assert entry["reinflow", "hopper"].significant is True
    assert entry["flow_sde", "hopper"].gain is None
    assert entry["flow_sde", "hopper"].significant is True, "one seed: [1490, 1510] -> [2990, 3010]"
    gain = entry["dppo", "hopper"].gain
    assert gain is not None
    assert gain.mean == 150.0
    assert entry["dppo", "hopper"].significant is False, "+400 and -100 over two seeds"
    assert entry["flow_noise", "hopper"].significant is None
    page = page_of(records)
    assert row(page, "DPPO on Hopper: a significant gain")[1:] == ["150 [-3,027, 3,327], paired over 2 seeds", "no"]
    assert row(page, "DPPO on Hopper: 3 seeds")[1:] == ["2", "no"]
    assert row(page, "Flow-SDE on Hopper: a significant gain")[1].endswith("intervals over episodes of one seed")
    assert row(page, "Flow-Noise on ArmPegInsert: a significant gain")[2] == "not measured"


def test_every_method_has_a_row_and_what_is_missing_is_called_so(tmp_path: Path) -> None:
    page, pictures = online_page({}, read_published())
    assert pictures == {}
    for method in METHODS:
        for env_id in TASKS.values():
            assert "not measured" in row(page, method.title, env_id)
    goals = re.findall(r"^\| (.*) on \w+: a significant gain \|.*not measured \|$", page, re.MULTILINE)
    assert goals == ["ReinFlow", "Flow-SDE", "Flow-Noise", "DPPO", "Gaussian PPO"] * 2


def test_pace_stands_beside_the_network_calls(records: Path) -> None:
    """Both runs have the same times; DPPO calls the network 20 + 10 x 8 times per chunk, ReinFlow 4 + 4 x 8."""
    cells = row(page_of(records), "Hopper")
    assert cells[3:] == ["1.00", f"{100 / 36:.2f}"]


def with_evaluations(run: Path, scores: list[float]) -> None:
    lines = [
        f'{{"step": {i * 1000}, "wall": {i * 10}, "evaluation/score": {s}, "evaluation/low": {s - 5}, '
        f'"evaluation/high": {s + 5}}}\n'
        for i, s in enumerate(scores)
    ]
    (run / "metrics.jsonl").write_text("".join(lines))


@pytest.mark.parametrize(("last", "word"), [(2996.0, "yes"), (2994.0, "no")])
def test_the_last_evaluation_is_held_against_the_best(last: float, word: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "finetune-seed0", "finetune", 2990.0, recipe="fpo/hopper")
    with_evaluations(run, [1000.0, 3000.0, last])
    record.record_runs([run], tmp_path / "records" / "fpo_hopper")
    cells = row(page_of(tmp_path / "records"), "FPO", "Hopper", "0")
    assert cells[5:] == ["3,000 [2,995, 3,005]", f"{last:,.0f} [{last - 5:,.0f}, {last + 5:,.0f}]", word]


def test_curves_are_means_over_seeds_as_far_as_all_went(tmp_path: Path) -> None:
    for seed, scores in enumerate(([0.0, 100.0, 200.0, 500.0], [200.0, 300.0, 400.0])):
        run = make_run(tmp_path / f"finetune-seed{seed}", "finetune", 1.0, seed, recipe="fpo/hopper")
        with_evaluations(run, scores)
        record.record_runs([run], tmp_path / "records" / "fpo_hopper")
    page, pictures = online_page(Records.load(tmp_path / "records").tasks, {})
    assert sorted(pictures) == ["online-hopper-steps.svg", "online-hopper-wall.svg"]
    assert all(f"curves/{name}" in page for name in pictures)
    line = re.findall(r'class="line s0" d="M([^"]*)"', pictures["online-hopper-steps.svg"])[0]
    x, y = np.array([[float(v) for v in point.split()] for point in line.split("L")]).T
    np.testing.assert_allclose(x, [0, 500, 1000], atol=0.1)
    np.testing.assert_allclose(np.diff(y), np.diff(y)[0], atol=0.2)  # 100, 200, 300: the mean of the two


def test_longer_cloning_is_a_row_a_level_and_a_command(records: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "bc_more" / "hopper" / "seed1"
    clone = tmp_path / "reinflow" / "pretrain-seed1"
    run = make_run(folder, "pretrain", 1520.0, 1, str(clone))
    text = (run / "config.yaml").read_text()
    text = text.replace("wall_seconds: 0.0", "wall_seconds: 4000.0", 1).replace(
        f"dir: {run}", "dir: runs/bc_more/seed1"
    )
    (run / "config.yaml").write_text(text)
    dump(run / "finished.json", {"updates": 9, "wall_seconds": 4000.0})
    (run / "metrics.jsonl").write_text('{"step": 100, "wall": 1.0, "bc/loss": 0.5}\n')
    record.record_runs([run], records / "bc_more_hopper")
    tasks = Records.load(records).tasks
    page, pictures = online_page(tasks, read_published())
    cells = row(page, "BC continued for the same wall time", "Hopper")
    assert cells[2:5] == ["1", "1,500 [1,490, 1,510]", "1,520 [1,510, 1,530]"]
    assert cells[7:] == ["0", "1 h 06 min", "", "", ""]
    assert "BC continued" in pictures["online-hopper-wall.svg"]
    assert list(commands_of(tasks["bc_more_hopper"])) == [
        "robo-rlft pretrain recipe=reinflow/hopper seed=1 run.checkpoint=runs/reinflow/hopper/pretrain-seed1 "
        "bc.wall_seconds=4000.0 run.dir=runs/bc_more/seed1",
        "robo-rlft evaluate runs/bc_more/seed1",
    ]


def test_a_record_of_another_environment_is_refused(records: Path) -> None:
    shutil.copytree(records / "dppo_hopper", records / "dppo_arm_peg_insert")
    with pytest.raises(RunError, match=r"dppo_arm_peg_insert/finetune-seed0 is of Hopper: record it by another name"):
        page_of(records)


def test_methods_without_published_figures_stand_in_the_comparison_only(records: Path) -> None:
    made = results.pages(Records.load(records))
    assert "## dppo/hopper" in made["learning.md"]
    assert "flow_sde" not in made["learning.md"]
    assert "recipe=flow_sde/hopper seed=1 run.checkpoint=runs/reinflow/hopper/pretrain-seed1" in made["online.md"]


def test_residual_policies_stand_apart_with_their_goals(tmp_path: Path) -> None:
    """Three seeds 20, 24, 22 % -> 98, 99, 97 %: mean 98 % and Student's interval; the student has no start."""
    kept, recipe = tmp_path / "records", "resip/arm_peg_insert"
    for seed, (start, end) in enumerate([(0.20, 0.98), (0.24, 0.99), (0.22, 0.97)]):
        clone = make_run(tmp_path / f"{seed}/pretrain-seed{seed}", "pretrain", 0.0, seed, recipe=recipe)
        run = make_run(tmp_path / f"{seed}/finetune-seed{seed}", "finetune", 0.0, seed, str(clone), recipe=recipe)
        for folder, rate in ((clone, start), (run, end)):
            success(folder, rate)
        record.record_runs([clone, run], kept / "resip_low")
    student = make_run(tmp_path / "pretrain-seed0", "pretrain", 0.0, recipe="resip/arm_peg_insert_pixels")
    success(student, 0.63)
    record.record_runs([student], kept / "student_low")
    page = page_of(kept)
    half = 4.302653 / np.sqrt(3)
    line = row(page, "ResiP: a residual on the frozen chunks", "low")
    assert line[2:5] == [
        "3",
        f"22.0 % [{22 - 2 * half:.1f}, {22 + 2 * half:.1f}]",
        f"98.0 % [{98 - half:.1f}, 100.0]",
    ]
    assert row(page, "cloned from the ResiP policy, sees pixels", "low")[2:5] == ["1", "", "63.0 % [53.0, 73.0]"]
    assert row(page, "ResiP, low: at least 95%")[-1] == "yes"
    assert "medium" not in "".join(cell for cell in page.splitlines() if cell.startswith("| ResiP"))


def success(run: Path, rate: float) -> None:
    value = json.loads((run / "evaluation" / "final.json").read_text())
    dump(run / "evaluation" / "final.json", value | {"success": {"mean": rate, "low": rate - 0.1, "high": rate + 0.1}})


def test_other_ways_to_act_show_what_they_cost(tmp_path: Path) -> None:
    kept = tmp_path / "records"
    run = make_run(tmp_path / "finetune-seed0", "finetune", 0.0, recipe="svdd/arm_peg_insert")
    rate = {"mean": 0.5, "low": 0.4, "high": 0.6}
    rows = [
        {"value": n, "success": rate, "return": rate, "network_calls": {"velocity": 4 * n, "critic": n}}
        for n in (1, 16)
    ]
    dump(run / "sweeps" / "best_of.json", {"key": "evaluate.best_of", "episodes": 200, "rows": rows})
    record.record_runs([run], kept / "svdd_arm_peg_insert")
    page = page_of(kept)
    assert "`evaluate.best_of`, 200 episodes each" in page
    assert row(page, "16") == ["16", "50.0 % [40.0, 60.0]", "80"]
    assert "svdd" not in results.pages(Records.load(kept))["learning.md"]
