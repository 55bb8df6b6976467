from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robo_rlft.errors import ConfigError, SpecError
from robo_rlft.export.manifest import Manifest, read_manifest
from robo_rlft.export.serving.contract import Contract
from robo_rlft.spec import ArraySpec

from .conftest import ContinuedManifest

STATE = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture(scope="module")
def manifest(exported: Path) -> Manifest:
    return read_manifest(exported)


@pytest.fixture(scope="module")
def seeing(manifest: Manifest) -> Manifest:
    """A policy of one time step with a camera."""
    robot = replace(
        manifest.robot, observation={"policy": ArraySpec((3,)), "image/hand": ArraySpec((4, 5, 3), "uint8")}
    )
    return replace(
        manifest, robot=robot, stage=replace(manifest.stage, observation=("policy", "image/hand"), obs_horizon=1)
    )


@pytest.mark.parametrize("key", ["policy", "observation/policy"])
@pytest.mark.parametrize("rows", [0, 1, 5])
def test_rows_are_told_from_the_shape(manifest: Manifest, key: str, rows: int) -> None:
    values = np.stack([STATE + i for i in range(rows)]) if rows else STATE
    request = Contract(manifest).read({key: values})
    assert (request.rows, request.single) == (max(rows, 1), rows == 0)
    np.testing.assert_array_equal(request.arrays["observation/policy"], values.reshape(-1, 2, 3))


def test_doubles_integers_and_lists_become_float32(manifest: Manifest) -> None:
    for values in (STATE.astype(np.float64), STATE.astype(np.int64), STATE.tolist(), STATE.astype(">f4")):
        array = Contract(manifest).read({"policy": values}).arrays["observation/policy"]
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array[0], STATE)


def test_a_policy_of_one_time_step_takes_observations_without_that_axis(seeing: Manifest) -> None:
    image = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    for state, picture in ((STATE[0], image), (STATE[:1], image[None])):
        request = Contract(seeing).read({"policy": state, "image/hand": picture})
        assert request.single
        assert request.arrays["observation/image/hand"].dtype == np.uint8
        np.testing.assert_array_equal(request.arrays["observation/image/hand"], image[None, None])
    with pytest.raises(SpecError, match="must have shape"):
        Contract(seeing).read({"policy": STATE[0], "image/hand": image.transpose(2, 0, 1)})


def test_a_clients_own_keys_are_mapped_and_ignored(seeing: Manifest) -> None:
    renamed = {"observation/state": "policy", "observation/image": "image/hand"}
    contract = Contract(seeing, renamed, ["prompt", "observation/wrist"])
    image = np.zeros((4, 5, 3), np.uint8)
    message = {"observation": {"state": STATE[0], "image": image, "wrist": image}, "prompt": "peg in"}
    assert set(contract.read(message).arrays) == {"observation/policy", "observation/image/hand"}
    flat = {"observation/state": STATE[0], "observation/image": image}
    assert contract.read(flat).arrays.keys() == contract.read(message).arrays.keys()
    assert set(contract.describe()) == {"observation/state", "observation/image", "noise"}


def test_a_mapping_to_nothing_is_refused_at_the_start(manifest: Manifest) -> None:
    with pytest.raises(
        ConfigError, match=r"--map state=polcy: unknown input of the policy 'polcy': did you mean policy"
    ):
        Contract(manifest, {"state": "polcy"})


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({}, r"the policy reads \['policy'\], the message lacks \['policy'\]"),
        ({"noise": np.zeros((4, 2))}, r"lacks \['policy'\]"),
        ({"policy": STATE, "polcy": STATE}, "unknown input 'polcy': did you mean policy; .* --map polcy=NAME"),
        ({"policy": STATE, "observation/policy": STATE}, "gives the input 'observation/policy' a second time"),
        ({"policy": STATE, "prompt": "go"}, "reads no text, got 'prompt': .* --ignore prompt"),
        ({"policy": STATE[0]}, r"'observation/policy' must have shape \[2, 3\] or \[rows, ...\], got \[3\]"),
        ({"policy": STATE[:, :2]}, r"must have shape \[2, 3\].*got \[2, 2\]"),
        ({"policy": np.zeros((0, 2, 3))}, "at least one row"),
        ({"policy": np.zeros((2, 2, 3)), "noise": np.zeros((4, 2))}, r"'noise' must have shape \[4, 2\]"),
        ({"policy": "left"}, "must be an array, got str"),
        ({"policy": [[1], [2, 3]]}, "must hold numbers"),
        ({"policy": None}, "must be an array, got NoneType"),
        ({"policy": STATE, "stage": "residual"}, r"has the stages \['policy'\], got 'residual'"),
        ({"policy": STATE, "stage": [1]}, r"got \[1\]"),
        ({"policy": STATE, "request": "one"}, "'request' must be a whole number, got str"),
        ({"policy": STATE, "guidance": 1.0}, "unknown input 'guidance'"),
        ({"policy": STATE, "prefix": np.zeros((2, 2))}, "unknown input 'prefix'"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(manifest: Manifest, message: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        Contract(manifest).read(message)


@pytest.mark.parametrize("pixels", [np.zeros((4, 5, 3), np.float32), np.zeros((3, 4, 5), np.uint8)])
def test_images_are_bytes_with_colours_last(seeing: Manifest, pixels: np.ndarray) -> None:
    with pytest.raises(SpecError, match=r"'observation/image/hand' must (be uint8|have shape \[1, 4, 5, 3\].*colour)"):
        Contract(seeing).read({"policy": STATE[0], "image/hand": pixels})


def test_guidance_is_the_bundles_own_unless_the_client_sets_it(manifest: Manifest) -> None:
    contract = Contract(replace(manifest, stage=replace(manifest.stage, guidance=1.5)))
    many = np.stack([STATE, STATE])
    assert contract.read({"policy": many}).arrays["guidance"].tolist() == [[1.5], [1.5]]
    assert contract.read({"policy": many, "guidance": 2.0}).arrays["guidance"].tolist() == [[2.0], [2.0]]
    each = np.array([[0.0], [3.0]])
    assert contract.read({"policy": many, "guidance": each}).arrays["guidance"].tolist() == each.tolist()


def test_prefix_and_delay_are_read_where_the_model_has_them(manifest: Manifest) -> None:
    contract = Contract(ContinuedManifest(**vars(manifest)))
    alone = contract.read({"policy": STATE}).arrays
    assert not alone["prefix"].any()
    assert alone["delay"].tolist() == [[-1.0]]
    prefix = np.arange(6.0).reshape(3, 2)
    given = contract.read({"policy": STATE, "prefix": prefix, "delay": 2}).arrays
    np.testing.assert_array_equal(given["prefix"], prefix[None])
    assert given["delay"].tolist() == [[2.0]]
    kinds = {contract.read({"policy": STATE, "prefix": prefix, "delay": d}).kind for d in (1, 1, 2)}
    assert len(kinds) == 2, "those with one delay are computed together"
    many = {"policy": np.stack([STATE, STATE])}
    for delay in (0.5, float("nan"), np.array([[0.0], [1.0]])):
        with pytest.raises(SpecError, match="'delay' must be one whole number"):
            contract.read({**many, "delay": delay})
    assert contract.describe()["prefix"] == {"dtype": "float32", "shape": [3, 2], "optional": True}


def test_a_policy_that_reads_text_gets_it(manifest: Manifest) -> None:
    contract = Contract(manifest, {"prompt": "instruction"}, text=["instruction"])
    request = contract.read({"policy": STATE, "prompt": "peg in"})
    assert request.text == {"instruction": "peg in"}
    with pytest.raises(SpecError, match="reads the text 'instruction', which the message lacks"):
        contract.read({"policy": STATE})
    with pytest.raises(SpecError, match="'instruction' must be text, got int"):
        contract.read({"policy": STATE, "prompt": 3})
    assert contract.describe()["prompt"]["dtype"] == "text"


def test_number_and_time_of_a_request_are_echoed(manifest: Manifest) -> None:
    request = Contract(manifest).read({"policy": STATE, "request": 7, "stamp_ns": np.int64(2**62)})
    assert request.echo == {"request": 7, "stamp_ns": 2**62}
