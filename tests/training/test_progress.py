from __future__ import annotations

import time

import pytest
from rich.console import Console

import robo_rlft.training.progress as module
from robo_rlft.training.progress import Progress, duration, summary_table


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_rate_and_time_left_of_a_resumed_loop(clock: list[float]) -> None:
    progress = Progress("train", 1000, unit="updates", done=500)
    assert progress.rate == 0
    assert progress.seconds_left is None
    clock[0] += 10
    progress.update(600)
    assert progress.rate == 10
    assert progress.seconds_left == pytest.approx(40)


def test_time_left_of_a_loop_limited_by_time(clock: list[float]) -> None:
    progress = Progress("train", 10**9, unit="updates")
    clock[0] += 30
    progress.update(7, fraction=0.25)
    assert progress.seconds_left == pytest.approx(90)


def test_without_a_terminal_there_is_one_line_per_interval(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("train", 100, unit="env steps", interval_s=10) as progress:
        for i in range(1, 31):
            clock[0] += 1
            progress.update(i, {"loss": 1 / i})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[2] for line in lines] == ["10 env steps", "20 env steps", "30 env steps"]
    assert lines[0] == "train  10 %  10 env steps  1/s  1 min 30 s left  loss 0.1"


def test_a_last_report_that_was_not_due_is_printed_at_the_end(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("train", 2, unit="updates") as progress:
        clock[0] += 0.5
        progress.update(2)
    assert capsys.readouterr().out.startswith("train 100 %  2 updates")


def test_a_terminal_shows_a_live_line(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    screen = Console(force_terminal=True, width=120, record=True)
    monkeypatch.setattr(module, "console", screen)
    with Progress("train", 10, unit="updates") as progress:
        clock[0] += 1
        progress.update(5, {"loss": 0.25})
        screen.print("a message")
    text = screen.export_text()
    assert "a message" in text
    assert "5 updates" in text
    assert "loss 0.25" in text


def test_a_table_shows_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    summary_table("Results", [{"policy": "bc", "success": 0.123456, "n": 200}, {"policy": "ppo", "n": 7}])
    out = capsys.readouterr().out
    assert "Results" in out
    assert "0.1235" in out
    assert "ppo" in out
    summary_table("Empty", [])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (3599, "59 min 59 s"), (7800, "2 h 10 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
