"""Normalisers: what each mode maps where, and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from robo_rlft.errors import ConfigError
from robo_rlft.policies.normaliser import Affine, fit
from robo_rlft.spec import ArraySpec

ROWS = np.array([[0.0, 10.0, 5.0], [2.0, 30.0, 5.0], [4.0, 20.0, 5.0]])
STATS = {"mean": ROWS.mean(0), "std": ROWS.std(0), "min": ROWS.min(0), "max": ROWS.max(0)}
SPEC = ArraySpec((3,), low=(-1.0, 0.0, 4.0), high=(7.0, 40.0, 8.0))


def fitted(mode: str, clip: float = 0.0) -> Affine:
    affine = Affine(3, clip).double()
    fit(affine, mode, STATS, SPEC)
    return affine


def test_gaussian_gives_mean_zero_and_variance_one() -> None:
    y = fitted("gaussian")(torch.as_tensor(ROWS))
    torch.testing.assert_close(y.mean(0), torch.zeros(3).double())
    torch.testing.assert_close(y.std(0, unbiased=False), torch.tensor([1.0, 1.0, 0.0]).double())


def test_minmax_maps_the_data_onto_the_unit_box() -> None:
    y = fitted("minmax")(torch.as_tensor(ROWS))
    assert y[:, :2].min(0).values.tolist() == [-1, -1]
    assert y[:, :2].max(0).values.tolist() == [1, 1]
    assert not y[:, 2].any(), "an entry that never varies sits in the middle"


def test_bounds_map_the_specs_limits() -> None:
    affine = fitted("bounds")
    torch.testing.assert_close(affine(torch.tensor(SPEC.low).double()), -torch.ones(3).double())
    torch.testing.assert_close(affine(torch.tensor(SPEC.high).double()), torch.ones(3).double())


def test_none_is_the_identity() -> None:
    assert torch.equal(fitted("none")(torch.as_tensor(ROWS)), torch.as_tensor(ROWS))


@pytest.mark.parametrize("mode", ["gaussian", "minmax", "bounds", "none"])
@given(x=hnp.arrays(np.float64, (4, 3), elements=st.floats(-1e3, 1e3)))
def test_round_trip(mode: str, x: np.ndarray) -> None:
    affine = fitted(mode)
    torch.testing.assert_close(affine.inverse(affine(torch.as_tensor(x))), torch.as_tensor(x), rtol=0, atol=1e-9)


def test_values_far_outside_the_data_are_clipped() -> None:
    y = fitted("minmax", clip=5.0)(torch.full((1, 3), 1e6).double())
    assert y.tolist() == [[5.0, 5.0, 5.0]]


def test_constants_are_saved_and_never_trained() -> None:
    affine = fitted("gaussian")
    assert not list(affine.parameters())
    other = Affine(3).double()
    other.load_state_dict(affine.state_dict())
    assert torch.equal(other.scale, affine.scale)


@pytest.mark.parametrize(
    ("mode", "stats", "spec", "message"),
    [
        ("zscore", STATS, SPEC, "'zscore' is unknown.*gaussian"),
        ("minmax", None, SPEC, "'minmax' needs the statistics"),
        ("bounds", STATS, ArraySpec((3,)), "'bounds' needs limits.*choose"),
    ],
)
def test_errors_say_what_to_do(mode: str, stats: dict | None, spec: ArraySpec, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fit(Affine(3), mode, stats, spec)
