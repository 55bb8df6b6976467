from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robo_rlft.training.chart import POINTS, Chart, Series, finite, log_ticks, running_mean, short, thin, ticks


def points_of(html: str, css_class: str) -> np.ndarray:
    """Coordinates of the first path with a class, 0..1000."""
    match = re.search(rf'<path class="{css_class}" d="([^"]*)"', html)
    assert match
    return np.array([[float(v) for v in p.split()] for p in re.split("[ML]", match[1])[1:]])


def test_points_lie_where_the_axes_say() -> None:
    chart = Chart("Success", "steps", [Series("a", np.array([0.0, 5, 10]), np.array([0.0, 0.25, 1.0]))], percent=True)
    np.testing.assert_allclose(points_of(chart.html(), "line s0"), [[0, 1000], [500, 750], [1000, 0]])


def test_a_logarithmic_axis_spaces_decades_evenly() -> None:
    chart = Chart("Loss", "steps", [Series("a", np.arange(3.0), np.array([1.0, 0.1, 0.01]))], log=True)
    y = points_of(chart.html(), "line s0")[:, 1]
    assert y[1] - y[0] == pytest.approx(y[2] - y[1], abs=0.2)
    linear = Chart("Loss", "steps", [Series("a", np.arange(3.0), np.array([1.0, 0.0, 0.01]))], log=True)
    assert points_of(linear.html(), "line s0")[1, 1] > points_of(linear.html(), "line s0")[2, 1]


def test_a_band_surrounds_its_line() -> None:
    x, y = np.arange(4.0), np.array([0.2, 0.4, 0.6, 0.8])
    html = Chart("Success", "steps", [Series("a", x, y, y - 0.1, y + 0.1)], percent=True).html()
    band = points_of(html.replace("Z", ""), "band b0")
    np.testing.assert_allclose(band[:4, 1], 1000 * (1 - y - 0.1))
    np.testing.assert_allclose(band[4:, 1][::-1], 1000 * (1 - y + 0.1))


def test_the_figure_is_well_formed_and_its_text_is_escaped() -> None:
    series = [
        Series("<b>&", np.arange(50.0), np.sin(np.arange(50)), smooth=True),
        Series("c", np.arange(3.0), np.ones(3)),
    ]
    root = ET.fromstring(Chart('"<script>"', "x < 1", series).html())
    assert root.tag == "figure"
    assert [e.text for e in root.iter("span") if "key" in (e.get("class") or "")] == ["<b>&", "c"]
    assert not list(root.iter("script"))


def test_values_under_the_pointer_are_those_of_the_data() -> None:
    series = Series("score", np.array([0.0, 10, 20]), np.array([0.1, 0.5, 0.9]), np.zeros(3), np.ones(3), dots=True)
    root = ET.fromstring(Chart("Success", "steps", [series], percent=True).html())
    titles = [e.text for e in root.iter("title")]
    assert titles == [
        "at 0\nscore: 10 % [0 %, 100 %]",
        "at 10\nscore: 50 % [0 %, 100 %]",
        "at 20\nscore: 90 % [0 %, 100 %]",
    ]
    widths = [float(e.get("width", "")) for e in root.iter("rect")]
    assert widths == [250, 500, 250]


def test_nothing_to_draw_draws_nothing() -> None:
    assert Chart("a", "x", [Series("s", np.array([1.0]), np.array([2.0]))]).html() == ""
    assert Chart("a", "x", [Series("s", np.arange(3.0), np.full(3, math.nan))]).html() == ""


def test_missing_values_are_left_out_and_points_ordered() -> None:
    series = finite(Series("s", np.array([3.0, 1, 2]), np.array([30.0, math.nan, 20]), np.array([3.0, 1, 2])))
    assert (series.x.tolist(), series.y.tolist()) == ([2, 3], [20, 30])
    assert series.low is not None
    assert series.low.tolist() == [2, 3]


@given(st.floats(-100, 100), st.floats(-15, 9))
def test_ticks_are_round_evenly_spaced_and_inside(start: float, decade: float) -> None:
    """`start` counts in spans of the axis, whatever its scale."""
    span = 10.0**decade
    low = start * span
    values = ticks(low, low + span)
    assert 3 <= len(values) <= 9
    slack = 1e-6 * span
    assert values[0] >= low - slack
    assert values[-1] <= low + span + slack
    steps = np.diff(values)
    assert np.allclose(steps, steps[0], rtol=1e-3)
    mantissa = steps[0] / 10.0 ** math.floor(math.log10(steps[0]) + 1e-6)
    assert min(abs(mantissa - m) for m in (1, 2, 5)) < 0.01


def test_ticks_by_hand() -> None:
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(0, 819200) == [0, 200000, 400000, 600000, 800000]
    assert ticks(2, 2) == [2]
    assert log_ticks(0.08, 1.1) == pytest.approx([0.1, 0.2, 0.5, 1.0])
    assert log_ticks(1e-6, 1.5) == pytest.approx([1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1])


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.25, "0.25"), (1e-5, "1e-05"), (1234, "1234"), (25000, "25k"), (2.5e6, "2.5M"), (-3e9, "-3G")],
)
def test_short_numbers(value: float, text: str) -> None:
    assert short(value) == text


def test_numbers_of_one_axis_share_their_unit() -> None:
    assert [short(v, 1e4) for v in (0, 2000, 10000)] == ["0", "2k", "10k"]


def test_thinning_keeps_the_mean_and_the_number_of_points() -> None:
    x = np.arange(10_000.0)
    few, values = thin(x, 3 * x)
    assert len(few) == POINTS
    np.testing.assert_allclose(values, 3 * few)
    assert values.mean() == pytest.approx(3 * x.mean())


def test_running_mean_by_hand() -> None:
    assert running_mean(np.array([0.0, 3, 6, 0, 3]), 3).tolist() == [1.5, 3, 3, 3, 1.5]
    assert running_mean(np.full(7, 2.0), 99).tolist() == [2.0] * 7
