"""`weights.safetensors` evaluated by numpy in float64, from the files alone and as docs/deploy/bundle.md says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from robo_rlft.export.bundle import write_bundle
from robo_rlft.export.runtime import Controller
from robo_rlft.export.weights import native_network

from .conftest import make_policy

ACTIVATIONS = {
    "silu": lambda x: x / (1 + np.exp(-x)),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
}


def evaluate(bundle: Path, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """The policy's action for one row of inputs by name."""
    native: dict[str, Any] = json.loads((bundle / "runtime.json").read_text())["native"]
    tensors = {k: v.astype(np.float64) for k, v in load_file(bundle / native["file"]).items()}
    cond = np.concatenate([_normalised(tensors, i, g, inputs) for i, g in enumerate(native["observation"])])
    shape, clip = (native["chunk"], native["width"]), native["latent_clip"] or np.inf
    if native["kind"] == "mlp":
        x = np.clip(_network(native, tensors, cond).reshape(shape), -clip, clip)
    else:
        x = inputs["noise"].astype(np.float64)
        for k in range(native["steps"]):
            x = _inpainted(native, tensors, inputs, x, k / native["steps"])
            v = _network(native, tensors, np.concatenate([x.ravel(), tensors["time"][k], cond])).reshape(shape)
            x = np.clip(x + v / native["steps"], -clip, clip)
    if native["bounded"]:
        x = np.clip(x, -1, 1)
    action = x * tensors["action.scale"] + tensors["action.offset"]
    action = np.clip(action, tensors.get("action.low", -np.inf), tensors.get("action.high", np.inf))
    committed = max(int(inputs["delay"][0]), 0) if native["prefix"] else 0
    action[:committed] = inputs["prefix"][:committed] if committed else action[:committed]
    return action


def _inpainted(
    native: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    inputs: Mapping[str, np.ndarray],
    x: np.ndarray,
    t: float,
) -> np.ndarray:
    if not native["prefix"]:
        return x
    x, committed = x.copy(), max(int(inputs["delay"][0]), 0)
    known = (inputs["prefix"][:committed].astype(np.float64) - tensors["action.offset"]) / tensors["action.scale"]
    x[:committed] = (1 - t) * inputs["noise"][:committed].astype(np.float64) + t * known
    return x


def _normalised(
    tensors: Mapping[str, np.ndarray], i: int, group: Mapping[str, Any], inputs: Mapping[str, np.ndarray]
) -> np.ndarray:
    raw = inputs[f"observation/{group['key']}"].astype(np.float64)
    y = (raw - tensors[f"observation.{i}.offset"]) / tensors[f"observation.{i}.scale"]
    clip = group["clip"] or np.inf
    return np.clip(y, -clip, clip).ravel()


def _network(native: Mapping[str, Any], tensors: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    for j in range(native["layers"]):
        x = tensors[f"layers.{j}.weight"] @ x + tensors[f"layers.{j}.bias"]
        x = x if j == native["layers"] - 1 else ACTIVATIONS[native["activation"]](x)
    return x


def largest_error(bundle: Path) -> float:
    """Between numpy and ONNX Runtime over the golden rows, in units of max(1, action scale)."""
    controller = Controller(bundle)
    golden = controller.golden
    inputs = {k: v for k, v in golden.items() if k != "action"}
    answer = controller._session.run(["action"], inputs)[0]
    mine = np.stack([evaluate(bundle, {k: v[i] for k, v in inputs.items()}) for i in range(len(golden["action"]))])
    scale = json.loads((bundle / "runtime.json").read_text())["golden"]["action_scale"]
    return float((np.abs(mine - answer) / scale).max())


@pytest.mark.parametrize(
    ("chain", "steps"),
    [
        ("reinflow", 3),
        ("gaussian", 1),
        ("mean_flow", 2),
        *(pytest.param(c, 4, marks=pytest.mark.slow) for c in ("euler", "flow_sde", "flow_noise", "fpo", "shortcut")),
    ],
)
def test_numpy_computes_the_policy_from_the_files_alone(chain: str, steps: int, tmp_path: Path) -> None:
    bundle = write_bundle(make_policy("mlp", chain, steps), tmp_path / "bundle", source={})
    assert largest_error(bundle) < 1e-5
    assert Controller(bundle).golden["action"].std() > 0.1, "a constant policy would prove nothing"


@pytest.mark.parametrize(("network", "chain"), [("unet1d", "euler"), ("mlp", "dsrl"), ("mlp", "ddim")])
def test_other_policies_say_that_they_have_no_plain_network(network: str, chain: str) -> None:
    assert native_network(make_policy(network, chain)) is None


def test_the_shapes_are_those_of_the_page(exported: Path) -> None:
    native = json.loads((exported / "runtime.json").read_text())["native"]
    tensors = load_file(exported / native["file"])
    assert native["kind"] == "flow_mlp"
    assert native["condition_width"] == 2 * 3
    assert tensors["layers.0.weight"].shape == (16, 4 * 2 + native["time_width"] + native["condition_width"])
    assert tensors["time"].shape == (native["steps"], native["time_width"])
    assert all(t.dtype == np.float32 for t in tensors.values())
