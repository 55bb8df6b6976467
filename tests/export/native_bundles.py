"""Synthetic bundles of the C++ runtime, in numpy: one network as plain weights, as ONNX and as a reference."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save

ACTIVATIONS = {
    "silu": lambda x: x / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "mish": lambda x: x * np.tanh(np.logaddexp(0, x)),
}
"""In float64, from their definitions."""
_GRAPH = {"tanh": "Tanh", "relu": "Relu", "elu": "Elu"}


@dataclass
class Robot:
    """What a test wants to be different about its bundle.

    Attributes:
        overrides: dotted names of entries of runtime.json, and what stands there instead.
    """

    joints: int = 2
    chunk: int = 8
    execute: int = 4
    rate_hz: float = 50.0
    meaning: str = "joint_position"
    kind: str = "flow_mlp"
    steps: int = 3
    hidden: tuple[int, ...] = (24, 40)
    activation: str = "silu"
    width: int = 5
    horizon: int = 2
    velocity: float | None = 2.0
    acceleration: float | None = 20.0
    gain: float = 1.0
    obs_clip: float | None = 5.0
    overrides: dict[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Joints and actions."""
        return [f"joint_{i}" for i in range(self.joints)]


class Network:
    """Random weights and what they say, in float64.

    Args:
        robot: shapes.
        seed: of the weights.
    """

    def __init__(self, robot: Robot, seed: int = 0) -> None:
        self.robot, rng = robot, np.random.default_rng(seed)
        size, cond = robot.chunk * robot.joints, robot.horizon * robot.width
        flow = robot.kind == "flow_mlp"
        time = rng.normal(size=(robot.steps, 6)) if flow else np.zeros((1, 0))
        widths = [(size if flow else 0) + time.shape[1] + cond, *robot.hidden, size]
        self.tensors: dict[str, np.ndarray] = {"time": time} if flow else {}
        for i, (a, b) in enumerate(pairwise(widths)):
            self.tensors[f"layers.{i}.weight"] = rng.normal(size=(b, a)) / np.sqrt(a)
            self.tensors[f"layers.{i}.bias"] = 0.1 * rng.normal(size=b)
        self.tensors |= {
            "observation.0.offset": rng.normal(size=robot.width),
            "observation.0.scale": rng.uniform(0.5, 2.0, robot.width),
            "action.offset": 0.1 * rng.normal(size=robot.joints),
            "action.scale": robot.gain * rng.uniform(0.5, 1.0, robot.joints),
            "action.low": np.full(robot.joints, -1.5),
            "action.high": np.full(robot.joints, 1.5),
        }
        self.tensors = {k: np.ascontiguousarray(v, np.float32) for k, v in self.tensors.items()}

    def act(self, observation: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Chunks [N, H, A] of observations [N, To, D] and noise [N, H, A], float64."""
        t = {k: v.astype(np.float64) for k, v in self.tensors.items()}
        seen = (observation.astype(np.float64) - t["observation.0.offset"]) / t["observation.0.scale"]
        clip = self.robot.obs_clip or np.inf
        cond = seen.clip(-clip, clip).reshape(len(seen), -1)
        x = noise.astype(np.float64).reshape(len(noise), -1)
        if self.robot.kind == "mlp":
            x = self._net(cond)
        else:
            for k in range(self.robot.steps):
                time = np.broadcast_to(t["time"][k], (len(x), t["time"].shape[1]))
                x = x + self._net(np.concatenate([x, time, cond], 1)) / self.robot.steps
        action = x.clip(-1, 1).reshape(noise.shape) * t["action.scale"] + t["action.offset"]
        return action.clip(t["action.low"], t["action.high"])

    def _net(self, x: np.ndarray) -> np.ndarray:
        layers = sum(k.endswith(".weight") for k in self.tensors)
        for i in range(layers):
            weight, bias = (self.tensors[f"layers.{i}.{k}"].astype(np.float64) for k in ("weight", "bias"))
            x = x @ weight.T + bias
            x = ACTIVATIONS[self.robot.activation](x) if i + 1 < layers else x
        return x

    def onnx(self) -> bytes:
        """The same as an ONNX model with the inputs and the output of a bundle's."""
        return _Graph(self).build().SerializeToString()


class _Graph:
    def __init__(self, network: Network) -> None:
        self.network, self.robot = network, network.robot
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def build(self) -> onnx.ModelProto:
        r, t = self.robot, self.network.tensors
        offset, scale = self.constant(t["observation.0.offset"]), self.constant(t["observation.0.scale"])
        seen = self.node("Div", self.node("Sub", "observation/policy", offset), scale)
        cond = self.node("Flatten", self.clip(seen, r.obs_clip), axis=1)
        x = self.node("Flatten", "noise", axis=1)
        if r.kind == "mlp":
            x = self.node("Add", self.net(cond), self.node("Mul", x, self.constant(np.float32(0))))
        else:
            for k in range(r.steps):
                step = self.constant(t["time"][k][None])
                velocity = self.net(self.node("Concat", x, step, cond, axis=1))
                x = self.node("Add", x, self.node("Div", velocity, self.constant(np.float32(r.steps))))
        shape = self.constant(np.array([-1, r.chunk, r.joints]))
        y = self.node("Reshape", self.clip(x, 1.0), shape)
        y = self.node("Add", self.node("Mul", y, self.constant(t["action.scale"])), self.constant(t["action.offset"]))
        low, high = self.constant(t["action.low"]), self.constant(t["action.high"])
        self.nodes.append(helper.make_node("Min", [self.node("Max", y, low), high], ["action"]))
        return self.model()

    def model(self) -> onnx.ModelProto:
        r = self.robot
        event = ["N", r.chunk, r.joints]
        inputs = [("observation/policy", ["N", r.horizon, r.width]), ("noise", event)]
        infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs]
        output = helper.make_tensor_value_info("action", TensorProto.FLOAT, event)
        graph = helper.make_graph(self.nodes, "policy", infos, [output], self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, values: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def clip(self, x: str, bound: float | None) -> str:
        if bound is None:
            return x
        return self.node("Clip", x, self.constant(np.float32(-bound)), self.constant(np.float32(bound)))

    def net(self, x: str) -> str:
        tensors = self.network.tensors
        layers = sum(k.endswith(".weight") for k in tensors)
        for i in range(layers):
            weight, bias = self.constant(tensors[f"layers.{i}.weight"]), self.constant(tensors[f"layers.{i}.bias"])
            x = self.node("Gemm", x, weight, bias, transB=1)
            x = self.activate(x) if i + 1 < layers else x
        return x

    def activate(self, x: str) -> str:
        kind = self.robot.activation
        if kind == "silu":
            return self.node("Mul", x, self.node("Sigmoid", x))
        if kind == "mish":
            return self.node("Mul", x, self.node("Tanh", self.node("Softplus", x)))
        return self.node(_GRAPH[kind], x)


def facts(robot: Robot) -> dict[str, Any]:
    """What stands in runtime.json, but for hashes."""
    n = robot.joints

    def each(value: float | None) -> list[float] | None:
        return None if value is None else [value] * n

    joints = {
        "names": robot.names,
        "units": ["rad"] * n,
        "position_low": each(-1.0),
        "position_high": each(1.0),
        "velocity": each(robot.velocity),
        "acceleration": each(robot.acceleration),
        "effort": each(10.0),
        "default": each(0.25),
        "stiffness": each(50.0),
        "damping": each(2.0),
    }
    chunk_s = robot.chunk / robot.rate_hz
    return {
        "format": "robo_rlft.runtime",
        "version": 1,
        "robot": {"env_id": "Toy", "rate_hz": robot.rate_hz},
        "action": {
            "names": robot.names,
            "units": ["rad"] * n,
            "low": each(-1.5),
            "high": each(1.5),
            "meaning": robot.meaning,
            "scale": each(1.0),
            "offset": each(0.0),
        },
        "joints": joints,
        "policy": {
            "file": "policy.onnx",
            "rate_hz": robot.rate_hz / robot.execute,
            "chunk": robot.chunk,
            "execute": robot.execute,
            "obs_horizon": robot.horizon,
            "observation": [{"key": "policy", "width": robot.width, "terms": []}],
            "noise": "standard_normal" if robot.kind == "flow_mlp" else "unused",
            "guidance": None,
            "prefix": 0,
        },
        "residual": None,
        "timing": {
            "latency_budget_s": 0.05,
            "observation_timeout_s": 0.06,
            "policy_timeout_s": chunk_s,
            "ramp_s": 0.5,
            "hold_s": 0.2,
        },
        "native": {
            "file": "weights.safetensors",
            "kind": robot.kind,
            "activation": robot.activation,
            "steps": robot.steps if robot.kind == "flow_mlp" else 1,
            "latent_clip": None,
            "bounded": True,
            "observation": [{"key": "policy", "width": robot.width, "clip": robot.obs_clip}],
            "layer_norm_eps": None,
            "prefix": 0,
        },
        "golden": {"file": "golden.npz", "tolerance": 1e-5, "action_scale": None},
    }


def write_bundle(folder: Path, robot: Robot | None = None, network: Network | None = None) -> Path:
    """A bundle with hashes and golden actions of the reference."""
    robot = robot or Robot()
    network = network or Network(robot)
    rng = np.random.default_rng(1)
    observation = rng.normal(0, 2, (6, robot.horizon, robot.width)).astype(np.float32)
    noise = rng.standard_normal((6, robot.chunk, robot.joints), dtype=np.float32)
    golden = io.BytesIO()
    action = network.act(observation, noise).astype(np.float32)
    arrays = {"observation/policy": observation, "noise": noise, "action": action}
    np.savez(golden, **arrays)  # pyright: ignore[reportArgumentType]
    files = {
        "policy.onnx": network.onnx(),
        "weights.safetensors": save(network.tensors),
        "golden.npz": golden.getvalue(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    content = facts(robot) | {"files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}}
    for name, value in robot.overrides.items():
        *path, last = name.split(".")
        place: Any = content
        for key in path:
            place = place[key]
        place[last] = value
    seal(folder, json.dumps(content).encode())
    return folder


def seal(folder: Path, description: bytes) -> None:
    """Write runtime.json, and a controller.yaml that agrees with it."""
    (folder / "runtime.json").write_bytes(description)
    text = (
        f"format: robo_rlft.controller\nfiles: {{runtime.json: {hashlib.sha256(description).hexdigest()}}}\n".encode()
    )
    (folder / "controller.yaml").write_bytes(text + b"digest: " + hashlib.sha256(text).hexdigest().encode() + b"\n")
