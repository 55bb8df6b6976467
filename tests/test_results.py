from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))  # The benchmarks are run from the checkout; they are no part of the installed package.

from benchmarks import picture, record, results  # noqa: E402
from benchmarks.page_demo import demo_page  # noqa: E402
from benchmarks.page_learning import (  # noqa: E402
    Published,
    learning_page,
    over_seeds,
    read_published,
    seconds_per_iteration,
)
from benchmarks.page_speed import speed_page  # noqa: E402
from benchmarks.records import Records, Score  # noqa: E402
from robo_rlft.errors import RunError  # noqa: E402
from robo_rlft.training.compare import differences, flatten, plain  # noqa: E402
from robo_rlft.training.configure import compose  # noqa: E402
from robo_rlft.training.statistics import Interval  # noqa: E402
from robo_rlft.training.video import write_mp4  # noqa: E402
from tests.recorded import STEPS, VERSIONS, cells, dump, evaluation, make_run  # noqa: E402


@pytest.fixture
def hopper(tmp_path: Path) -> list[Path]:
    """Three seeds with the clones they began with: 1400, 1500, 1600 -> 3100, 3200, 3300."""
    runs = []
    for seed in range(3):
        clone = make_run(tmp_path / f"pretrain-seed{seed}", "pretrain", 1400.0 + 100 * seed, seed)
        start = f"{clone}/checkpoints/last"
        runs += [clone, make_run(tmp_path / f"finetune-seed{seed}", "finetune", 3100.0 + 100 * seed, seed, start)]
    return runs


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_record_is_small_complete_and_the_same_again(hopper: list[Path], tmp_path: Path) -> None:
    words = [*map(str, hopper), "--name", "hopper"]
    assert record.main(words, tmp_path / "a") == record.main(words, tmp_path / "b") == 0
    kept = contents(tmp_path / "a")
    assert kept == contents(tmp_path / "b")
    names = {"config.yaml", "versions.json", "finished.json", "command.txt", "metrics.csv", "evaluation/final.json"}
    assert set(kept) == {f"hopper/{run.name}/{name}" for run in hopper for name in names}
    assert not [name for name, data in kept.items() if str(tmp_path).encode() in data or b"ppo/loss" in data]
    text = kept["hopper/finetune-seed1/evaluation/final.json"].decode()
    assert len(re.findall(r'^ +\{"seed".*\},?$', text, re.M)) == 4
    again = json.loads(text)
    assert again == json.loads((hopper[3] / "evaluation/final.json").read_text()) | {"checkpoint": "finetune-seed1"}


def test_a_run_recorded_again_replaces_itself_and_leaves_the_others(hopper: list[Path], tmp_path: Path) -> None:
    record.record_runs(hopper, tmp_path / "kept")
    before = contents(tmp_path / "kept")
    (tmp_path / "kept" / hopper[0].name / "stray").write_text("")
    record.record_runs(hopper[:1], tmp_path / "kept")
    assert contents(tmp_path / "kept") == before


def unfinished(run: Path) -> None:
    (run / "finished.json").unlink()


def unevaluated(run: Path) -> None:
    (run / "evaluation" / "final.json").unlink()


def evaluated_early(run: Path) -> None:
    dump(run / "evaluation" / "final.json", evaluation("final", 1.0, env_steps=STEPS // 2))


def damaged(run: Path) -> None:
    (run / "finished.json").write_text("{")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (unfinished, "has not reached its end"),
        (unevaluated, "has no evaluation of its own: run robo-rlft evaluate"),
        (evaluated_early, f"is of {STEPS // 2} environment steps and the run ended at {STEPS}"),
        (damaged, "is damaged"),
        (shutil.rmtree, "is not a run folder"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_run_without_a_result_is_refused(
    spoil: Any, told: str, hopper: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(hopper[1])
    assert record.main([str(hopper[0]), str(hopper[1]), "--name", "hopper"], tmp_path / "kept") == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "kept").exists(), "nothing is recorded unless everything can be"


@given(st.lists(st.text(st.characters(categories=("L", "N", "P"), exclude_characters="/"), min_size=1)))
def test_absolute_paths_are_cut_to_their_last_name(names: list[str]) -> None:
    path = "/" + "/".join([*names, "last"])
    value = {"a": [path, f"see {path} there"], "b": 1, "c": "runs/demo/finetune", "d": "3 env-steps/s"}
    cut = record.without_places(value)
    assert cut["a"][0] == "last"
    assert "/" not in cut["a"][1] or not names
    assert (cut["b"], cut["c"], cut["d"]) == (1, "runs/demo/finetune", "3 env-steps/s")


@pytest.mark.parametrize(
    "words",
    [
        ["recipe=reinflow/hopper", "seed=4"],
        [
            "recipe=reinflow/arm_peg_insert",
            "env.params.clearance=0.002",
            "run.wall_seconds=60",
            "ppo.reward_scale=false",
        ],
        ["recipe=gaussian_ppo/ant", "policy.network.hidden=[64,32]", "run.stop_return=900"],
        ["env.id=Walker2d", "run.checkpoint=none"],
    ],
)
def test_the_recorded_command_gives_the_same_settings(words: list[str]) -> None:
    config = plain(compose(words))
    command = shlex.split(record.command_of(config, "finetune"))
    assert command[:2] == ["robo-rlft", "finetune"]
    again = plain(compose(command[2:]))
    assert list(differences(flatten(config), flatten(again))) == []
    assert len(command) == 2 + len(words) + ("seed=4" not in words)


def test_a_command_leaves_out_places_and_names_another_start(hopper: list[Path]) -> None:
    """A clone of its own seed is found without being named; another one is called as its recipe calls it."""
    own = record.read_config(hopper[3])
    assert record.command_of(own, "finetune") == "robo-rlft finetune recipe=reinflow/hopper seed=1"
    other = own | {"run": own["run"] | {"checkpoint": str(hopper[0])}}
    told = record.command_of(other, "finetune")
    assert told.endswith("seed=1 run.checkpoint=runs/reinflow/hopper/pretrain-seed0")


def test_learning_page_shows_start_end_mean_and_cost(hopper: list[Path], tmp_path: Path) -> None:
    record.main([*map(str, hopper), "--name", "hopper"], tmp_path / "kept")
    page, pictures = learning_page(Records.load(tmp_path / "kept").tasks, read_published())
    assert cells(page, "seed 1") == ["seed 1", "1,500 [1,490, 1,510]", "3,200 [3,190, 3,210]", "409,600"]
    half = 4.302653 * 100 / np.sqrt(3)
    limits = [f"{mean:,} [{mean - half:,.0f}, {mean + half:,.0f}]" for mean in (1500, 3200)]
    assert cells(page, "mean of 3") == ["mean of 3", *limits, "409,600"]
    assert cells(page, "published") == ["published", "1,432", "3,205", "80,000,000"]
    assert cells(page, "ends at 3,205, the mean over seeds")[1:] == ["3,200", "no"]
    assert cells(page, "within 10,000,000 environment steps")[1:] == ["409,600", "yes"]
    update = (13 * 3 + 12 * 1) / 25
    cost = ["1 h 06 min", "25", f"{0.75 + update:.2f}", "0.50", "0.25", f"{update:.2f}"]
    assert page.count("| seed 1 | " + " | ".join(cost) + " |") == 1
    assert "for seed in 0 1 2; do\n  robo-rlft finetune recipe=reinflow/hopper seed=${seed}\n" in page
    assert sorted(pictures) == ["hopper-steps.svg", "hopper-wall.svg"]
    walker = page.split("## reinflow/walker2d")[1]
    assert "Not measured yet" in walker
    assert "robo-rlft finetune recipe=reinflow/walker2d seed=${seed}" in walker


def test_a_goal_is_reached_when_the_figures_reach_it(hopper: list[Path], tmp_path: Path) -> None:
    record.main([*map(str, hopper), "--name", "hopper"], tmp_path / "kept")
    tasks = Records.load(tmp_path / "kept").tasks
    for end, word in ((3200.0, "yes"), (3200.5, "no")):
        page, _ = learning_page(tasks, {"reinflow/hopper": Published(1432, end, 80_000_000, "there", [])})
        assert cells(page, f"ends at {end:,.0f}, the mean over seeds")[2] == word


def test_without_a_recorded_clone_the_start_is_the_first_evaluation(hopper: list[Path], tmp_path: Path) -> None:
    record.main([str(hopper[3]), "--name", "alone"], tmp_path / "kept")
    page, _ = learning_page(Records.load(tmp_path / "kept").tasks, {})
    assert cells(page, "seed 1")[1] == "1,111 [1,100, 1,122]"
    assert "mean of" not in page


def test_from_scratch_there_is_no_start(tmp_path: Path) -> None:
    run = make_run(tmp_path / "scratch", "finetune", 900.0, recipe="gaussian_ppo/hopper")
    record.main([str(run), "--name", "scratch"], tmp_path / "kept")
    page, _ = learning_page(Records.load(tmp_path / "kept").tasks, {})
    assert cells(page, "seed 0") == ["seed 0", "900 [890, 910]", "409,600"]


def test_over_seeds_needs_every_seed() -> None:
    score = Score(Interval(1.0, 0.0, 2.0), False, 4)
    assert over_seeds([score]) is None
    assert over_seeds([score, None]) is None
    assert over_seeds([score, score]) == Interval(1.0, 1.0, 1.0)


def test_seconds_of_an_iteration_weigh_rows_by_their_rounds() -> None:
    rows = {"rounds": np.array([0.0, 3.0, 1.0]), "time/update": np.array([np.nan, 1.0, 5.0])}
    assert seconds_per_iteration(rows) == {"update": 2.0}


def bench_row(name: str, num_envs: int, limit: float, **peers: float) -> dict[str, Any]:
    row = {"name": name, "num_envs": num_envs, "value": 12345.6, "unit": "env-steps/s", "limit_ratio": limit}
    return {**row, "peer_ratios": peers, "detail": {"per_cpu_second": 6000.4}}


def test_speed_page_judges_the_goals_by_the_worst_case(tmp_path: Path) -> None:
    rows = [
        bench_row("Ant/step", 1, 0.5, envpool=1.2),
        bench_row("Ant/step", 64, 0.96, envpool=0.9, **{"async": 3.5}),
        bench_row("Ant/chunk", 64, 0.97, envpool=2.0, **{"async": 4.0}),
    ]
    dump(tmp_path / "out.json", rows)
    assert record.main(["--bench", str(tmp_path / "out.json"), "--name", "envs"], tmp_path / "kept") == 0
    page = speed_page(Records.load(tmp_path / "kept").benches)
    assert cells(page, "at least 0.95 of the C limit from 64 environments on")[1:] == [
        "2 of 2 cases; lowest 0.96 (Ant/step, 64)",
        "yes",
    ]
    assert cells(page, "faster than envpool in every case")[1:] == ["2 of 3 cases; lowest 0.90 (Ant/step, 64)", "no"]
    assert cells(page, "at least 3 times Gymnasium's AsyncVectorEnv")[2] == "yes"
    assert cells(page, "Ant/step") == ["Ant/step", "1", "12,346", "env-steps/s", "6,000", "0.500", "1.20", ""]
    assert page.count("Not measured yet") == 4, "the other benches"


@pytest.mark.parametrize(("ratio", "word"), [(2.0, "yes"), (1.99, "no")])
def test_updates_are_judged_by_the_plain_loop(ratio: float, word: str) -> None:
    row = bench_row("update/reinflow/hopper", 1024, 0.8, **{"plain loop": ratio})
    row["detail"] = {"gradient_error": 2.3e-7}
    page = speed_page({"update": {**VERSIONS, "rows": [row]}})
    assert cells(page, "at least twice as fast as the plain loop")[2] == word
    assert cells(page, "update/reinflow/hopper")[-3:] == ["0.800", f"{ratio:.2f}", "2e-07"]


def test_only_rows_of_a_bench_are_recorded_as_such(tmp_path: Path) -> None:
    dump(tmp_path / "other.json", {"rows": []})
    with pytest.raises(RunError, match="does not hold the rows of a bench"):
        record.record_bench(tmp_path / "other.json", tmp_path / "kept.json")


SUMMARY = {
    "pretrained": {"success": 0.5, "ci95": [0.43, 0.57]},
    "bc_longer": {"success": 0.6, "ci95": [0.53, 0.67]},
    "finetuned": {"success": 0.97, "ci95": [0.936, 0.986]},
    "controller": {"success": 0.965, "ci95": [0.93, 0.983]},
    "env_steps": 1_000_000,
    "wall_seconds": 450.0,
    "episodes": 200,
    "demonstrations": 120,
    "parts": {"demonstrations": 50.0, "fine-tuning": 400.0},
    "latency": [
        {"call": "inference", "rows": 1, "calls": 2000, "p50_us": 205.4, "p99_us": 600, "p99.9_us": 900, "max_us": 1e4}
    ],
    "runs": [],
}


def reached(page: str) -> list[str]:
    return re.findall(r"\| (yes|no) \|$", page, re.M)


def test_demo_page_shows_the_summary_and_judges_it() -> None:
    page = demo_page(SUMMARY)
    assert cells(page, "bc longer")[2:] == ["60.0 %", "[53.0, 67.0]"]
    assert cells(page, "fine-tuning")[1] == "6 min 40 s"
    assert cells(page, "inference")[1:] == ["1", "2,000", "205", "600", "900", "10,000"]
    assert "120 demonstrations" in page
    assert "1,000,000 environment steps" in page
    assert reached(page) == ["yes"] * 6


@pytest.mark.parametrize(
    ("goal", "change"),
    [
        (0, {"pretrained": {"success": 0.71, "ci95": [0.64, 0.77]}}),
        (1, {"bc_longer": {"success": 0.71, "ci95": [0.64, 0.77]}}),
        (2, {"finetuned": {"success": 0.945, "ci95": [0.91, 0.97]}}),
        (3, {"bc_longer": {"success": 0.69, "ci95": [0.43, 0.94]}}),
        (4, {"controller": {"success": 0.93, "ci95": [0.88, 0.96]}}),
        (5, {"wall_seconds": 481.0}),
    ],
)
def test_a_missed_goal_of_the_demo_is_called_missed(goal: int, change: dict[str, Any]) -> None:
    assert reached(demo_page({**SUMMARY, **change})) == ["no" if i == goal else "yes" for i in range(6)]


def make_demo(home: Path, outcomes: dict[str, list[bool]]) -> Path:
    """A demo whose videos are of one colour each: red, green and blue for the three policies, darker per episode."""
    for (name, (folder, _)), channel in zip(picture.STRIPS.items(), range(3), strict=True):
        make_run(home / folder, "finetune" if folder == "finetune" else "pretrain", 1.0)
        (home / folder / "evaluation" / "final.json").unlink()
        rows = [{"seed": i, "return": 1.0, "length": 20, "success": won} for i, won in enumerate(outcomes[name])]
        files = [f"videos/{name}-{i}.mp4" for i in range(len(rows))]
        rate = {key: SUMMARY[name]["ci95"][i] for i, key in enumerate(("low", "high"))}
        rate["mean"] = SUMMARY[name]["success"]
        made = evaluation(name, 1.0, success=rate, per_seed=rows, videos=files, env_steps=STEPS)
        dump(home / folder / "evaluation" / f"{name}.json", made)
        for i, file in enumerate(files):
            frames = np.zeros((30, 48, 64, 3), np.uint8)
            frames[..., channel] = 240 - 100 * i
            write_mp4(home / folder / file, frames, 20)
    dump(home / "evaluation" / "controller.json", evaluation("controller", 1.0, success=None))
    dump(home / "summary.json", {k: v for k, v in SUMMARY.items() if k != "runs"} | {"report": f"{home}/report.html"})
    return home


def decoded(data: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image[..., ::-1]


def test_the_picture_shows_the_episode_that_fine_tuning_saved(tmp_path: Path) -> None:
    outcomes = {"pretrained": [True, False], "bc_longer": [False, False], "finetuned": [True, True]}
    strips = picture.strips_of(make_demo(tmp_path / "demo", outcomes))
    assert [strip.success for strip in strips] == [False, False, True]
    assert [strip.rate for strip in strips] == [0.5, 0.6, 0.97]
    assert strips[0].caption == "Cloned from\n120 demonstrations"
    assert strips[0].times[-1] == pytest.approx((30 - 1 - 10) / 20), "the rest at the end of a video is left out"
    data = picture.draw(strips)
    image = decoded(data).astype(int)
    assert len(data) <= picture.LIMIT_BYTES
    height, width = image.shape[:2]
    for row, channel in enumerate(range(3)):
        pixel = image[int(height * (row + 0.5) / 3), int(width * 0.3)]
        assert pixel[channel] == pytest.approx(140, abs=12), "the second episode, of that policy"
        assert pixel.sum() - pixel[channel] < 40


def test_the_picture_shrinks_until_it_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (picture.FRAMES, 24, 32, 3), np.uint8)
    strips = [picture.Strip("noise", 0.5, 0.4, 0.6, True, frames, [0.0] * picture.FRAMES)]
    monkeypatch.setattr(picture, "_DPI", (50, 30))
    large = picture.draw(strips)
    monkeypatch.setattr(picture, "LIMIT_BYTES", len(large) - 1)
    assert decoded(picture.draw(strips)).shape[1] == decoded(large).shape[1] * 30 // 50
    monkeypatch.setattr(picture, "LIMIT_BYTES", 10)
    with pytest.raises(RunError, match="film a plainer scene"):
        picture.draw(strips)


def test_a_demo_without_videos_is_told_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    demo = make_demo(tmp_path / "demo", {name: [] for name in picture.STRIPS})
    assert picture.main([str(demo), "--to", str(tmp_path / "x.png")]) == 2
    assert "no videos to draw" in capsys.readouterr().err
    assert picture.main([str(tmp_path), "--to", str(tmp_path / "x.png")]) == 2
    assert "give the folder of a finished demo" in capsys.readouterr().err
    assert not (tmp_path / "x.png").exists()


def test_a_demo_is_recorded_whole_and_apart_from_the_tasks(tmp_path: Path) -> None:
    outcomes = {name: [True] for name in picture.STRIPS}
    demo = make_demo(tmp_path / "demo", outcomes)
    assert record.main([str(demo), "--name", "demo"], tmp_path / "records") == 0
    kept = contents(tmp_path / "records")
    assert {"demo/summary.json", "demo/evaluation/controller.json", "demo/finetune/metrics.csv"} <= set(kept)
    assert not [name for name, data in kept.items() if str(tmp_path).encode() in data]
    assert results.main([], tmp_path) == 0
    assert "97.0 %" in (tmp_path / "demo.md").read_text()
    assert "a processor" in (tmp_path / "demo.md").read_text()
    assert "demo" not in [path.name for path in (tmp_path / "curves").glob("*")]


def test_check_finds_every_page_that_is_not_what_the_records_give(
    hopper: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record.main([*map(str, hopper), "--name", "hopper"], tmp_path / "records")
    assert results.main([], tmp_path) == 0
    assert results.main(["--check"], tmp_path) == 0
    page = tmp_path / "learning.md"
    page.write_text(page.read_text().replace("3,200", "3,300"))
    (tmp_path / "curves" / "gone-steps.svg").write_text("")
    (tmp_path / "curves" / "hopper-wall.svg").unlink()
    capsys.readouterr()
    assert results.main(["--check"], tmp_path) == 1
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in told] == ["curves/gone-steps.svg", "curves/hopper-wall.svg", "learning.md"]
    assert results.main([], tmp_path) == 0
    assert results.main(["--check"], tmp_path) == 0


def test_the_committed_pages_are_what_the_records_give() -> None:
    assert results.main(["--check"]) == 0


def test_no_record_names_a_place_on_a_machine() -> None:
    files = [path for path in (ROOT / "docs" / "results" / "records").rglob("*") if path.is_file()]
    assert [path for path in files if re.search(r"(?:^|[\s'\"])/\w+/", path.read_text(encoding="utf-8"))] == []


def test_a_sweep_is_recorded_and_shown(tmp_path: Path) -> None:
    run = make_run(tmp_path / "finetune-seed0", "finetune", 3000.0)
    scores = {0.0: 1400.0, 1.0: 3000.0}
    rows = [
        {"value": w, "success": None, "return": {"mean": r, "low": r - 10, "high": r + 10}} for w, r in scores.items()
    ]
    dump(
        run / "sweeps" / "guidance.json", {"key": "evaluate.guidance", "env_id": "Hopper", "episodes": 7, "rows": rows}
    )
    record.record_runs([run], tmp_path / "records" / "hopper")
    text, _ = learning_page(Records.load(tmp_path / "records").tasks, read_published())
    assert "other values of `evaluate.guidance`, 7 episodes each" in text
    assert re.search(r"\| 0 \| 1,400 \[1,390, 1,410\] \|", text), text


def test_iterations_show_their_parts_and_floor() -> None:
    def row(method: str, update: float, calls: int) -> dict[str, Any]:
        parts = {"simulation_seconds": 1.0, "inference_seconds": 0.5, "update_seconds": update}
        seconds = sum(parts.values())
        detail = {**parts, "seconds": seconds, "floor_seconds": 2.0, "network_calls": calls}
        return bench_row(f"iteration/{method}/hopper", 64, 2.0 / seconds) | {"detail": detail}

    rows = [row("reinflow", 1.5, 36), row("dppo", 4.5, 100), row("fpo", 100.0, 68)]
    page = speed_page({"iteration": {**VERSIONS, "rows": rows}})
    expected = ["reinflow/hopper", "3.00", "1.00 (33%)", "0.50 (17%)", "1.50 (50%)", "2.00", "1.50", "36"]
    assert cells(page, "reinflow/hopper") == expected
    assert "DPPO 6.00 s per iteration, 2.00 times as long for 2.78 times the network calls" in page
    goal = cells(page, "ReinFlow and DPPO within 1.5 times their floor (0.67)")
    assert goal[1:] == ["1 of 2 cases; lowest 0.33 (iteration/dppo/hopper, 64)", "no"]
