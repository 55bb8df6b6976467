from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from robo_rlft.errors import BundleError, SpecError
from robo_rlft.export.runtime import Controller

from .conftest import reseal

Draw = Callable[[int], tuple[dict[str, np.ndarray], np.ndarray]]


@pytest.fixture(scope="module")
def controller(exported: Path) -> Controller:
    return Controller(exported)


def test_loading_reproduces_the_golden_actions(controller: Controller) -> None:
    assert controller.golden_error <= 1e-5
    observation = {"policy": controller.golden["observation/policy"]}
    scale = np.array([8.0, 2.0])
    action = controller.act(observation, controller.golden["noise"])
    assert (np.abs(action - controller.golden["action"]) / scale).max() <= 1e-5


def test_a_batch_gives_what_its_rows_give(controller: Controller, inputs: Draw) -> None:
    observation, noise = inputs(9)
    batch = controller.act(observation, noise)
    assert batch.shape == (9, 4, 2)
    assert batch.dtype == np.float32
    rows = [controller.act({"policy": observation["policy"][i : i + 1]}, noise[i : i + 1]) for i in range(9)]
    np.testing.assert_allclose(batch, np.concatenate(rows), atol=1e-5)


def test_threads_do_not_change_the_action(exported: Path, controller: Controller, inputs: Draw) -> None:
    np.testing.assert_allclose(Controller(exported, threads=2).act(*inputs(5)), controller.act(*inputs(5)), atol=1e-5)


@pytest.mark.parametrize("name", ["controller.yaml", "policy.onnx", "golden.npz"])
def test_a_flipped_bit_in_any_file_is_refused_by_name(bundle: Path, name: str) -> None:
    data = bytearray((bundle / name).read_bytes())
    for position in np.linspace(0, len(data) - 1, 12).astype(int):
        data[position] ^= 1
        (bundle / name).write_bytes(bytes(data))
        with pytest.raises(BundleError, match=name):
            Controller(bundle)
        data[position] ^= 1
    (bundle / name).write_bytes(bytes(data))
    Controller(bundle)


@pytest.mark.parametrize("name", ["controller.yaml", "policy.onnx", "golden.npz"])
@pytest.mark.parametrize("size", [0, 100])
def test_a_truncated_or_missing_file_is_refused_by_name(bundle: Path, name: str, size: int) -> None:
    (bundle / name).write_bytes((bundle / name).read_bytes()[:size])
    with pytest.raises(BundleError, match=name):
        Controller(bundle)
    (bundle / name).unlink()
    with pytest.raises(BundleError, match=name):
        Controller(bundle)


def test_a_hand_edited_limit_is_refused(bundle: Path) -> None:
    text = (bundle / "controller.yaml").read_text()
    (bundle / "controller.yaml").write_text(text.replace("[10.0, 1.5]", "[99.0, 1.5]"))
    with pytest.raises(BundleError, match="was altered after the export"):
        Controller(bundle)


def test_golden_actions_of_another_model_are_refused_with_the_error(bundle: Path) -> None:
    golden = dict(Controller(bundle).golden)
    golden["action"] = golden["action"] + np.float32(0.25)
    buffer = io.BytesIO()
    np.savez(buffer, **golden)
    reseal(bundle, "golden.npz", buffer.getvalue())
    with pytest.raises(BundleError, match=r"does not reproduce.*the error is 0\.1[23]"):
        Controller(bundle)


@pytest.mark.parametrize("arrays", [{}, {"action": np.zeros((2, 4, 2))}, {"action": np.zeros((0, 4, 2), np.float32)}])
def test_golden_arrays_of_the_wrong_kind_are_refused(bundle: Path, arrays: dict[str, np.ndarray]) -> None:
    golden = {**Controller(bundle).golden, **arrays}
    if not arrays:
        del golden["noise"]
    buffer = io.BytesIO()
    np.savez(buffer, **golden)
    reseal(bundle, "golden.npz", buffer.getvalue())
    with pytest.raises(BundleError, match=r"golden\.npz"):
        Controller(bundle)


def test_a_model_with_other_inputs_is_refused(bundle: Path) -> None:
    model = onnx.load(bundle / "policy.onnx")
    next(i for i in model.graph.input if i.name == "noise").name = "latent"
    for node in model.graph.node:
        node.input[:] = ["latent" if name == "noise" else name for name in node.input]
    reseal(bundle, "policy.onnx", model.SerializeToString())
    with pytest.raises(BundleError, match="takes inputs"):
        Controller(bundle)


def test_bytes_that_are_no_model_are_refused(bundle: Path) -> None:
    reseal(bundle, "policy.onnx", b"not a model")
    with pytest.raises(BundleError, match="cannot load"):
        Controller(bundle)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_values_that_are_not_finite_are_refused_by_name(controller: Controller, inputs: Draw, bad: float) -> None:
    observation, noise = inputs(3)
    wide = observation["policy"].astype(np.float64)
    wide[2, 1, 2] = bad
    with pytest.raises(SpecError, match="row 2: entry 'angle' is"):
        controller.act({"policy": wide}, noise)
    noise[1, 0, 0] = np.nan
    with pytest.raises(SpecError, match="'noise' row 1: entry 'left' is nan"):
        controller.act(observation, noise)


def test_wrong_keys_shapes_and_types_are_refused(controller: Controller, inputs: Draw) -> None:
    observation, noise = inputs(3)
    with pytest.raises(SpecError, match=r"reads observations \['policy'\], got \['polciy'\]"):
        controller.act({"polciy": observation["policy"]}, noise)
    with pytest.raises(SpecError, match=r"'observation/policy' must have shape \[3, 2, 3\]"):
        controller.act({"policy": observation["policy"][:2]}, noise)
    with pytest.raises(SpecError, match=r"'observation/policy' must have shape \[3, 2, 3\]"):
        controller.act({"policy": observation["policy"][:, -1]}, noise)
    with pytest.raises(SpecError, match=r"'noise' must have shape \[3, 4, 2\]"):
        controller.act(observation, noise[:, :3])
    with pytest.raises(SpecError, match="must have shape"):
        controller.act(observation, np.float32(0))
    with pytest.raises(SpecError, match="must have shape"):
        controller.act({"policy": observation["policy"][:0]}, noise[:0])
    with pytest.raises(SpecError, match="must hold numbers"):
        controller.act({"policy": np.full((3, 2, 3), "left")}, noise)


def test_the_runtime_imports_no_training_stack(exported: Path) -> None:
    code = (
        "import sys, robo_rlft.export.runtime as r; r.Controller(sys.argv[1]);"
        "print([m for m in ('torch','mujoco','gymnasium','jaxtyping','zarr','hydra','omegaconf') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(exported)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
