from __future__ import annotations

import base64
import json
import re
import webbrowser
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import robo_rlft.training.report_html as report_html
from robo_rlft.errors import RunError
from robo_rlft.training.config import Config
from robo_rlft.training.report import focus_of, report_for, verdict, view
from robo_rlft.training.run import Run
from robo_rlft.training.statistics import bootstrap_mean, wilson
from robo_rlft.training.video import write_mp4

VOID = {"meta", "input", "br", "link", "img"}


class Page(HTMLParser):
    """A parsed page: its text, its elements, and whether every tag is closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "title"):
            self.text += data.replace("\u202f", " ")

    def all(self, tag: str, css_class: str | None = None) -> list[dict[str, str | None]]:
        return [a for t, a in self.elements if t == tag and css_class in (None, *(a.get("class") or "").split())]


def record(name: str, successes: int, episodes: int = 50, **more: Any) -> dict[str, Any]:
    rows = [
        {"seed": 1000 + i, "return": float(i < successes), "length": 30 + i, "success": i < successes}
        for i in range(episodes)
    ]
    success = wilson(successes, episodes).to_dict()
    returns = bootstrap_mean(np.array([row["return"] for row in rows])).to_dict()
    base = {"name": name, "env_id": "ArmPegInsert", "episodes": episodes, "success": success, "return": returns}
    return (
        base | {"per_seed": rows, "env_steps": 1234567, "checkpoint": "last", "wall_seconds": 65.0, "videos": []} | more
    )


def without_success(name: str, returns: np.ndarray) -> dict[str, Any]:
    rows = [{"seed": i, "return": float(r), "length": 1000, "success": False} for i, r in enumerate(returns)]
    interval = bootstrap_mean(returns).to_dict()
    return record(name, 0) | {"env_id": "Hopper", "success": None, "return": interval, "per_seed": rows}


def add(run: Path, *records: dict[str, Any]) -> None:
    (run / "evaluation").mkdir(exist_ok=True)
    for entry in records:
        (run / "evaluation" / f"{entry['name'].replace('/', '')}.json").write_text(json.dumps(entry))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with metrics, evaluations and videos."""
    config = Config()
    config.run.tensorboard = False
    path = tmp_path / "run"
    with Run.open(path, config, verb="finetune") as opened:
        for i in range(20):
            values = {
                "rollout/success": i / 20,
                "rollout/return": i / 20,
                "ppo/kl": 0.01 * (i % 3),
                "ppo/odd_one": i**2,
            }
            opened.metrics.write(i * 1000, values, wall=float(i))
            if i % 5 == 0:
                opened.metrics.write(
                    i * 1000, {"evaluation/score": i / 20, "evaluation/low": 0.0, "evaluation/high": 1.0}, wall=float(i)
                )
    for name in ("pretrained-0", "finetuned-0"):
        write_mp4(path / "videos" / f"{name}.mp4", np.full((3, 16, 16, 3), 100, np.uint8), 10)
    add(
        path,
        record("training-000010", 20),
        record("finetuned", 49, videos=["videos/finetuned-0.mp4"]),
        record("bc_longer", 26),
        record("pretrained", 25, videos=["videos/pretrained-0.mp4"]),
    )
    return path


def test_the_page_shows_what_the_run_holds(run: Path) -> None:
    page = Page(report_for(run))
    assert (
        "Success rose from 50.0 % to 98.0 % (pretrained to finetuned); the 95 % intervals do not overlap." in page.text
    )
    low, high = wilson(49, 50).low, wilson(49, 50).high
    assert f"98.0 % [{100 * low:.1f}, {100 * high:.1f}]" in page.text
    assert "BC longer" in page.text
    assert "1,234,567" in page.text
    assert "1 min 05 s" in page.text
    assert "training-000010" not in page.text
    assert "clip: 0.01" in page.text
    assert "odd one (ppo)" in page.text
    cards = page.text.split("do not overlap.")[1]
    order = [cards.index(name) for name in ("pretrained", "BC longer", "finetuned")]
    assert order == sorted(order)


def test_the_page_needs_nothing_but_itself(run: Path) -> None:
    page = Page(report_for(run))
    for tag, attributes in page.elements:
        assert tag not in ("script", "link", "img", "iframe")
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert not re.search(r"url\(|@import|https?://", page.source)


def test_videos_stand_in_pairs_and_are_whole(run: Path) -> None:
    page = Page(report_for(run))
    sources = [(v["src"] or "").partition(",")[2] for v in page.all("video")]
    files = [run / "videos" / f"{name}-0.mp4" for name in ("pretrained", "finetuned")]
    assert [base64.b64decode(s) for s in sources] == [f.read_bytes() for f in files]
    assert all({"autoplay", "muted", "loop", "playsinline"} <= set(v) for v in page.all("video"))
    assert "seed 1000, 30 steps" in page.text


def test_videos_beyond_the_budget_stay_out_and_are_counted(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_html, "EMBEDDED_BYTES", (run / "videos/pretrained-0.mp4").stat().st_size)
    page = Page(report_for(run))
    assert len(page.all("video")) == 1
    assert "1 more in the videos folder" in page.text


def test_every_episode_is_one_cell(run: Path) -> None:
    page = Page(report_for(run))
    assert len(page.all("rect", "yes")) == 49 + 26 + 25
    assert len(page.all("rect", "no")) == 1 + 24 + 25


def test_the_bars_of_the_cards_are_the_intervals(run: Path) -> None:
    page = Page(report_for(run))
    interval = wilson(25, 50)
    style = next(a["style"] for t, a in page.elements if t == "i")
    assert style == f"left:{100 * interval.low:.1f}%;width:{100 * (interval.high - interval.low):.1f}%"


def test_text_of_the_user_cannot_become_markup(run: Path) -> None:
    add(run, record("<script>alert(1)</script>", 3))
    page = Page(report_for(run, title="<img src=x>", notes=["a < b & c"]))
    assert "<script>alert(1)</script>" in page.text
    assert "<img src=x>" in page.text
    assert "a < b & c" in page.text
    assert not page.all("script")


def test_a_task_without_success_is_judged_by_its_return(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "hopper"
    Run.open(path, {"run": {"tensorboard": False}}, verb="finetune").__exit__(None, None, None)
    add(path, without_success("before", rng.normal(1400, 50, 30)), without_success("final", rng.normal(3200, 50, 30)))
    page = Page(report_for(path))
    assert re.search(r"The mean return rose from 1,[34]\d\d to 3,[12]\d\d", page.text)
    assert "Hopper, fine-tuned" in page.text
    assert len(page.all("rect", "level")) == 60
    assert "%]" not in page.text


def test_several_runs_make_one_page_and_are_told_apart(tmp_path: Path) -> None:
    for seed in range(3):
        path = tmp_path / f"finetune-seed{seed}"
        with Run.open(path, {"seed": seed, "run": {"tensorboard": False}}, verb="finetune") as run:
            for i in range(5):
                run.metrics.write(i, {"rollout/return": float(i * seed)}, wall=float(i))
        add(path, record("before", 10), record("final", 40 + seed))
    page = Page(report_for(tmp_path))
    assert "Success over 3 runs rose from 20.0 % to 82.0 %; single runs ended between 80.0 % and 84.0 %." in page.text
    assert "final finetune-seed2" in page.text
    assert set(re.findall(r"seed: \d", page.text)) == {"seed: 0", "seed: 1", "seed: 2"}


def test_an_unfinished_run_has_a_page_too(tmp_path: Path) -> None:
    settings = {"env": {"id": "Ant"}, "run": {"tensorboard": False}}
    Run.open(tmp_path / "new", settings, verb="pretrain").__exit__(None, None, None)
    assert Page(report_for(tmp_path / "new")).text.strip().startswith("Ant, imitated")


def test_overlapping_intervals_are_called_so() -> None:
    text = verdict([record("pretrained", 25), record("finetuned", 28)]).replace("\u202f", " ")
    assert text == (
        "Success rose from 50.0 % to 56.0 % (pretrained to finetuned); "
        "the 95 % intervals overlap, so that chance may explain it."
    )
    assert "fell" in verdict([record("pretrained", 30), record("final", 3)])
    assert verdict([record("final", 3)]) == ""
    assert verdict([]) == ""


def test_the_result_is_the_fine_tuned_policy_and_not_its_export() -> None:
    records = [record(name, 1) for name in ("pretrained", "finetuned", "controller")]
    assert focus_of(records) is records[1]
    assert focus_of(records[::2]) is records[2]
    assert focus_of([]) is None


def test_what_is_no_run_is_named_with_the_verb_for_it(tmp_path: Path) -> None:
    for name, file, message in (
        ("data", "zarr.json", "is a data set, not a run: look at it with robo-rlft doctor data="),
        ("bundle", "controller.yaml", "is a controller bundle, not a run: execute it with robo-rlft run "),
        ("other", "x", "is not a run folder"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).touch()
        with pytest.raises(RunError, match=message):
            view(tmp_path / name)
    with pytest.raises(RunError, match="does not exist"):
        view(tmp_path / "absent")


@pytest.mark.parametrize("text", ["{", "[]", '{"name": "x"}'])
def test_a_damaged_evaluation_is_named(run: Path, text: str) -> None:
    (run / "evaluation" / "final.json").write_text(text)
    with pytest.raises(RunError, match=r"final\.json .* evaluate again"):
        report_for(run)


def test_view_prints_the_path_and_opens_it_when_asked(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    page = view(run, browser=False)
    assert f"report: {page}" in capsys.readouterr().out
    assert opened == []
    assert view(page, browser=True) == page
    assert opened == [page.resolve().as_uri()]
