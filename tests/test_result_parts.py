"""The parts that the result pages are built from: thinned metrics, intervals over runs, curves."""

from __future__ import annotations

import csv
import io
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).parents[1]))  # The benchmarks are run from the checkout, not installed.

from benchmarks.curve import picture as svg
from benchmarks.thinned import from_csv, to_csv
from robo_rlft.training.chart import Chart, Series
from robo_rlft.training.metrics import Columns
from robo_rlft.training.statistics import student_mean


def columns_of(rounds: int, every: int) -> Columns:
    rng = np.random.default_rng(rounds)
    is_round = np.arange(rounds + rounds // every) % (every + 1) != every
    count = len(is_round)
    figures = {name: np.where(is_round, rng.random(count), np.nan) for name in ("rollout/return", "time/update")}
    score = np.where(is_round, np.nan, rng.random(count))
    return {"step": 64.0 * np.cumsum(is_round), "wall": np.arange(count) * 1.5, **figures, "evaluation/score": score}


@given(rounds=st.integers(1, 900), every=st.integers(1, 30), rows=st.integers(8, 60))
def test_thinning_keeps_means_ends_and_evaluations(rounds: int, every: int, rows: int) -> None:
    columns = columns_of(rounds, every)
    back = from_csv(to_csv(columns, rows))
    assert len(back["step"]) <= rows
    assert (np.diff(back["step"]) >= 0).all()
    assert back["step"][-1] == columns["step"][-1]
    assert back["rounds"].sum() == rounds
    for name in ("rollout/return", "time/update"):
        of_rounds = back["rounds"] > 0
        mean = np.average(back[name][of_rounds], weights=back["rounds"][of_rounds])
        np.testing.assert_allclose(mean, np.nanmean(columns[name]), rtol=1e-4)
        assert np.isnan(back[name][~of_rounds]).all()
    kept = back["evaluation/score"][back["rounds"] == 0]
    true = columns["evaluation/score"][np.isfinite(columns["evaluation/score"])]
    assert {f"{value:.6g}" for value in kept} <= {f"{value:.6g}" for value in true}
    if len(true):
        np.testing.assert_allclose(kept[[0, -1]], true[[0, -1]], rtol=1e-5)


def test_short_metrics_are_kept_row_by_row() -> None:
    columns = columns_of(20, 5)
    back = from_csv(to_csv(columns))
    for name, values in columns.items():
        np.testing.assert_allclose(back[name], values, rtol=1e-5)


def test_students_interval_is_that_of_the_tables() -> None:
    """95 % quantiles of t for 1, 2, 4 and 30 degrees of freedom; 1, 2, 3 has mean 2 and standard deviation 1."""
    interval = student_mean(np.array([1.0, 2.0, 3.0]))
    assert interval.mean == 2.0
    assert interval.high - 2 == pytest.approx(4.302653 / np.sqrt(3), rel=1e-6)
    for freedom, quantile in ((1, 12.706205), (4, 2.776445), (30, 2.042272)):
        values = np.arange(freedom + 1.0)
        half = (student_mean(values).high - student_mean(values).low) / 2
        assert half * np.sqrt(freedom + 1) / values.std(ddof=1) == pytest.approx(quantile, rel=1e-6)
    for values in ([1.0], [1.0, np.nan]):
        with pytest.raises(ValueError, match="two finite values"):
            student_mean(np.array(values))


def test_a_curve_is_a_picture_of_its_own() -> None:
    x = np.linspace(0, 1e6, 40)
    chart = Chart("<Return>", "environment steps", [Series("a & b", x, 2 * x), Series("c", x[:2], x[:2])])
    root = ET.fromstring(svg(chart))
    space = "{http://www.w3.org/2000/svg}"
    texts = [element.text for element in root.iter(f"{space}text")]
    assert {"<Return>", "a & b", "c", "environment steps", "1M"} <= set(texts)
    lines = [e.get("d") or "" for e in root.iter(f"{space}path") if (e.get("class") or "").startswith("line")]
    points = np.array([[float(v) for v in p.split()] for p in lines[0][1:].split("L")])
    np.testing.assert_allclose(points[:, 0], x / 1e3, atol=0.1)
    assert (np.diff(points[:, 1]) < 0).all(), "larger values stand higher"
    style = next(root.iter(f"{space}style")).text or ""
    used = set(re.findall(r"var\((--\w+)\)", style))
    assert used <= set(re.findall(r"(--\w+):", style)), "every colour it uses is defined in it"
    assert "prefers-color-scheme: dark" in style
    assert {".plot .line", ".plot .grid", ".s0"} <= {rule.split(" {")[0] for rule in style.splitlines()}


def test_a_curve_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        svg(Chart("t", "x", [Series("a", np.array([np.nan]), np.array([1.0]))]))


def test_csv_is_plain() -> None:
    text = to_csv({"step": np.array([1.0]), "wall": np.array([2.5]), "rollout/return": np.array([np.inf])})
    assert list(csv.reader(io.StringIO(text))) == [
        ["step", "wall", "rounds", "rollout/return"],
        ["1", "2.500", "1", "inf"],
    ]
