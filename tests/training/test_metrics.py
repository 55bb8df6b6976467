from __future__ import annotations

import errno
import importlib.util
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from robo_rlft.errors import MissingExtraError, RunError
from robo_rlft.training.metrics import Metrics, read


def filled(path: Path, steps: int, tensorboard: bool = False) -> Path:
    with Metrics(path, tensorboard) as metrics:
        for step in range(steps):
            metrics.write(step, {"loss": step / 2}, wall=step * 0.1)
    return path / "metrics.jsonl"


def test_rows_become_columns_with_nan_where_a_row_has_nothing(tmp_path: Path) -> None:
    with Metrics(tmp_path, tensorboard=False) as metrics:
        metrics.write(1, {"a": 1.0, "b": math.nan}, wall=0.5)
        metrics.write(1, {"c": math.inf}, wall=0.6)
        metrics.write(4, {"a": 2.0, "c": -math.inf}, wall=0.7)
    columns = read(tmp_path)
    assert list(columns) == ["step", "wall", "a", "b", "c"]
    expected = [[1, 1, 4], [0.5, 0.6, 0.7], [1, math.nan, 2], [math.nan] * 3, [math.nan, math.inf, -math.inf]]
    for values, wanted in zip(columns.values(), expected, strict=True):
        np.testing.assert_array_equal(values, wanted)


# Genesis, once started, has its process take subnormal numbers for zero.
@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(width=64, allow_subnormal=False), min_size=1, max_size=5))
def test_every_float_survives_and_every_line_is_strict_json(
    tmp_path_factory: pytest.TempPathFactory, values: list
) -> None:
    path = tmp_path_factory.mktemp("run")
    with Metrics(path, tensorboard=False) as metrics:
        for step, value in enumerate(values):
            metrics.write(step, {"x": value}, wall=0.0)
    np.testing.assert_array_equal(read(path)["x"], values)

    def refuse(name: str) -> float:
        raise AssertionError(f"{name} is not JSON")

    for line in (path / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)


def test_a_row_is_on_file_before_write_returns(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, tensorboard=False)
    metrics.write(3, {"a": 1.0}, wall=0.0)
    assert read(tmp_path)["step"].tolist() == [3]
    metrics.close()


def test_a_file_cut_at_any_byte_is_repaired_to_its_whole_rows(tmp_path: Path) -> None:
    file = filled(tmp_path, 4)
    data = file.read_bytes()
    for size in range(len(data) + 1):
        file.write_bytes(data[:size])
        whole = data[:size].count(b"\n")
        assert read(tmp_path)["step"].tolist() == list(range(whole))
        with Metrics(tmp_path, tensorboard=False) as metrics:
            metrics.write(9, {}, wall=0.0)
        assert read(tmp_path)["step"].tolist() == [*range(whole), 9]


def test_after_truncation_no_step_appears_twice(tmp_path: Path) -> None:
    filled(tmp_path, 10)
    with Metrics(tmp_path, tensorboard=False) as metrics:
        metrics.truncate_after(6)
        with pytest.raises(ValueError, match="step 5 after those of step 6"):
            metrics.write(5, {}, wall=0.0)
        for step in range(7, 12):
            metrics.write(step, {"loss": -1.0}, wall=0.0)
    columns = read(tmp_path)
    assert columns["step"].tolist() == list(range(12))
    assert columns["loss"].tolist() == [*(s / 2 for s in range(7)), *[-1.0] * 5]


def test_truncating_everything_starts_anew(tmp_path: Path) -> None:
    filled(tmp_path, 3)
    with Metrics(tmp_path, tensorboard=False) as metrics:
        metrics.truncate_after(-1)
        metrics.write(0, {}, wall=0.0)
    assert read(tmp_path)["step"].tolist() == [0]


def test_tensorboard_shows_each_step_once_after_a_resume(tmp_path: Path) -> None:
    filled(tmp_path, 10, tensorboard=True)
    with Metrics(tmp_path) as metrics:
        metrics.truncate_after(5)
        for step in range(6, 9):
            metrics.write(step, {"loss": -1.0}, wall=0.0)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    scalars = events.Scalars("loss")
    assert [e.step for e in scalars] == list(range(9))
    assert [e.value for e in scalars] == [*(s / 2 for s in range(6)), *[-1.0] * 3]


def test_a_damaged_row_is_named(tmp_path: Path) -> None:
    file = filled(tmp_path, 3)
    file.write_bytes(file.read_bytes().replace(b'{"step": 1', b'{"stop": 1'))
    with pytest.raises(RunError, match=r"line 2 of .*metrics.jsonl is not a row of metrics"):
        read(tmp_path)
    with pytest.raises(RunError, match="line 2"):
        Metrics(tmp_path)


def test_where_there_are_no_metrics_the_message_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no metrics at"):
        read(tmp_path)


def test_a_full_disk_is_one_sentence_and_the_rows_before_stay(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, tensorboard=False)
    metrics.write(0, {"a": 1.0}, wall=0.0)
    file = descriptor_of(tmp_path / "metrics.jsonl")
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, file)
    os.close(full)
    with pytest.raises(RunError, match="the disk is full"):
        metrics.write(1, {"a": 2.0}, wall=0.1)
    metrics.close()
    assert read(tmp_path)["step"].tolist() == [0]


def test_a_row_written_in_part_is_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may take the first bytes of a row and report the full disk only at the next call."""
    metrics = Metrics(tmp_path, tensorboard=False)

    class Half:
        def write(self, data: bytes) -> int:
            return len(data) // 2

    monkeypatch.setattr(metrics, "_file", Half())
    with pytest.raises(RunError, match="the disk is full") as caught:
        metrics.write(0, {}, wall=0.0)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC


def test_weights_and_biases_that_is_missing_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"run.wandb=arm\) needs 'wandb': pip install 'robo-rlft\[wandb\]'"):
        Metrics(tmp_path, wandb="arm")


def descriptor_of(path: Path) -> int:
    """The file descriptor under which this process has a file open."""
    return next(int(p.name) for p in Path("/proc/self/fd").iterdir() if p.exists() and p.samefile(path))
