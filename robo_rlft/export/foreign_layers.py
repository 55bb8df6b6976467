"""A foreign ONNX model as plain layers, where it is a plain MLP: constants on the input, then linear layers.

What is recognised is checked: layers that do not reproduce the golden actions are not written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from robo_rlft.export.manifest import OBSERVATION_PREFIX, TOLERANCE, WEIGHTS_FILE
from robo_rlft.export.native_format import MLP, NativeNetwork
from robo_rlft.spec import POLICY_KEY, ArraySpec

ACTIVATIONS = {"Elu": "elu", "Relu": "relu", "Tanh": "tanh"}
"""ONNX operators by the names of the format."""
_FORWARD = {
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
}
Arrays = dict[str, np.ndarray]


class _OtherError(Exception):
    """The model is something else than a plain MLP."""


def plain_layers(
    proto: onnx.ModelProto, widths: tuple[int, int], limits: ArraySpec, pairs: Mapping[str, np.ndarray]
) -> NativeNetwork | None:
    """The model's layers, or None if it is no plain MLP.

    Args:
        proto: a model with one input [1, D] and one output [1, A].
        widths: (D, A).
        limits: of the action.
        pairs: golden inputs and actions, which the layers must reproduce.
    """
    try:
        walk = _Walk(proto, widths[0])
    except _OtherError:
        return None
    tensors = {**walk.tensors(), "action.offset": np.zeros(widths[1]), "action.scale": np.ones(widths[1])}
    bounds = {"action.low": limits.low, "action.high": limits.high}
    tensors |= {name: np.asarray(values) for name, values in bounds.items() if values}
    tensors = {name: np.ascontiguousarray(values, np.float32) for name, values in tensors.items()}
    section = _section(walk, widths)
    return NativeNetwork(section, tensors) if _reproduces(section, tensors, pairs) else None


class _Walk:
    """Follows the one path from the input to the output.

    Attributes:
        scale, offset: y = scale * x + offset of the input, [D].
        layers: (weight [out, in], bias [out]) in order.
        activation: between all layers; `tanh` where there is one layer only.
    """

    def __init__(self, proto: onnx.ModelProto, width: int) -> None:
        self._constants = {w.name: numpy_helper.to_array(w).astype(np.float64) for w in proto.graph.initializer}
        self.scale, self.offset = np.ones(width), np.zeros(width)
        self.layers: list[tuple[np.ndarray, np.ndarray]] = []
        self._activations: list[str] = []
        current = next(i.name for i in proto.graph.input if i.name not in self._constants)
        for node in proto.graph.node:
            if node.op_type == "Constant":
                self._keep(node)
            else:
                current = self._step(node, current)
        if current != proto.graph.output[0].name or len(self._activations) != len(self.layers) - 1:
            raise _OtherError
        if len(set(self._activations)) > 1:
            raise _OtherError
        self.activation = self._activations[0] if self._activations else "tanh"

    def tensors(self) -> Arrays:
        """The layers and the normaliser (x - offset) / scale by the names of the format."""
        layers: Arrays = {}
        for j, (weight, bias) in enumerate(self.layers):
            layers |= {f"layers.{j}.weight": weight, f"layers.{j}.bias": bias}
        return {"observation.0.offset": -self.offset / self.scale, "observation.0.scale": 1 / self.scale, **layers}

    def _keep(self, node: onnx.NodeProto) -> None:
        value = next((a.t for a in node.attribute if a.name == "value"), None)
        if value is None:
            raise _OtherError
        self._constants[node.output[0]] = numpy_helper.to_array(value).astype(np.float64)

    def _step(self, node: onnx.NodeProto, current: str) -> str:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if current not in node.input:
            raise _OtherError
        if node.op_type == "Gemm":
            self._gemm(node, attributes, current)
        elif node.op_type == "MatMul":
            self._linear(self._constant(node.input[1]).T, 0.0)
        elif node.op_type in ("Sub", "Add", "Mul", "Div"):
            self._affine(node, current)
        elif node.op_type in ACTIVATIONS and attributes.get("alpha", 1.0) == 1.0:
            self._activations.append(ACTIVATIONS[node.op_type])
        elif node.op_type not in ("Identity", "Flatten", "Cast"):
            raise _OtherError
        return node.output[0]

    def _gemm(self, node: onnx.NodeProto, attributes: Mapping[str, Any], current: str) -> None:
        scaled = (attributes.get("alpha", 1.0), attributes.get("beta", 1.0)) != (1.0, 1.0)
        if node.input[0] != current or attributes.get("transA", 0) or scaled:
            raise _OtherError
        weight = self._constant(node.input[1])
        bias = self._constant(node.input[2]) if len(node.input) > 2 else 0.0
        self._linear(weight if attributes.get("transB", 0) else weight.T, bias)

    def _linear(self, weight: np.ndarray, bias: np.ndarray | float) -> None:
        if weight.ndim != 2 or len(self._activations) != len(self.layers):
            raise _OtherError
        self.layers.append((weight, np.broadcast_to(bias, len(weight)).astype(np.float64)))

    def _affine(self, node: onnx.NodeProto, current: str) -> None:
        """Constants on the input, or the bias after a MatMul."""
        first, second = node.input
        if second == current and node.op_type in ("Sub", "Div"):
            raise _OtherError
        value = self._constant(second if first == current else first).reshape(-1)
        if self.layers:
            weight, bias = self.layers[-1]
            if node.op_type != "Add" or len(self._activations) == len(self.layers):
                raise _OtherError
            self.layers[-1] = (weight, bias + value)
            return
        shift = {"Sub": -value, "Add": value}.get(node.op_type)
        if shift is not None:
            self.offset = self.offset + shift
            return
        factor = value if node.op_type == "Mul" else 1 / value
        self.scale, self.offset = self.scale * factor, self.offset * factor

    def _constant(self, name: str) -> np.ndarray:
        if name not in self._constants:
            raise _OtherError
        return self._constants[name]


def _section(walk: _Walk, widths: tuple[int, int]) -> dict[str, Any]:
    return {
        "file": WEIGHTS_FILE,
        "kind": MLP,
        "activation": walk.activation,
        "steps": 1,
        "chunk": 1,
        "width": widths[1],
        "time_width": 0,
        "condition_width": widths[0],
        "layers": len(walk.layers),
        "latent_clip": None,
        "bounded": False,
        "observation": [{"key": POLICY_KEY, "width": widths[0], "clip": None}],
        "layer_norm_eps": None,
        "prefix": 0,
        "tolerance": TOLERANCE,
    }


def _reproduces(section: Mapping[str, Any], tensors: Mapping[str, np.ndarray], pairs: Mapping[str, np.ndarray]) -> bool:
    raw = pairs[OBSERVATION_PREFIX + POLICY_KEY][:, 0]
    x = (raw - tensors["observation.0.offset"]) / tensors["observation.0.scale"]
    for j in range(section["layers"]):
        x = x @ tensors[f"layers.{j}.weight"].T + tensors[f"layers.{j}.bias"]
        x = x if j == section["layers"] - 1 else _FORWARD[section["activation"]](x)
    x = np.clip(x, tensors.get("action.low", -np.inf), tensors.get("action.high", np.inf))
    return bool(x.shape == pairs["action"][:, 0].shape and np.abs(x - pairs["action"][:, 0]).max() <= TOLERANCE)
