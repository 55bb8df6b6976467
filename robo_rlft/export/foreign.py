"""A policy somebody else trained, as a bundle of ours: an ONNX file (rsl_rl, mjlab) and a robot file written by hand.

The model keeps its weights and gets our signature around it: `observation/policy` [N, 1, D] and an unused `noise` in,
`action` [N, 1, A] within the limits out. Golden pairs are what ONNX Runtime computes with the model as it came.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from robo_rlft.errors import BundleError, ConfigError
from robo_rlft.export.bundle import sealed
from robo_rlft.export.foreign_facts import with_metadata
from robo_rlft.export.foreign_layers import plain_layers
from robo_rlft.export.golden import golden_inputs
from robo_rlft.export.manifest import (
    MODEL_FILE,
    OBSERVATION_PREFIX,
    TOLERANCE,
    WEIGHTS_FILE,
    Manifest,
    Normaliser,
    Stage,
    sha256,
)
from robo_rlft.export.publish import publish
from robo_rlft.export.robot_file import described, read_robot_file, timing_of_file
from robo_rlft.export.timing import timing_of
from robo_rlft.spec import POLICY_KEY, ArraySpec, RobotSpec

INPUT = OBSERVATION_PREFIX + POLICY_KEY
IMPORTED = "imported"
"""Name of the chain of a policy whose training is not ours."""
_OLDEST_OPSET = 8


@dataclass(frozen=True)
class ForeignModel:
    """A model that maps one observation vector to one action vector.

    Attributes:
        path: where it came from.
        data: its bytes.
        proto: it, parsed.
        observation: name of its input.
        action: name of its output.
        widths: (D, A).
    """

    path: Path
    data: bytes
    proto: onnx.ModelProto
    observation: str
    action: str
    widths: tuple[int, int]

    @property
    def metadata(self) -> dict[str, str]:
        """What its exporter noted inside."""
        return {entry.key: entry.value for entry in self.proto.metadata_props}


def import_policy(model: Path | str, robot_file: Path | str, target: Path | str, overwrite: bool = False) -> Path:
    """The verb: write the bundle of a foreign model.

    Args:
        model: an ONNX file with one input [1, D] and one output [1, A], float32.
        robot_file: what the model does not say (`robot_file`); its metadata fills the gaps, where there is some.
        target: the bundle's folder.
        overwrite: replace another bundle there.

    Raises:
        ConfigError: the robot file does not fit the model or its metadata.
        BundleError: the model is none that can be imported.
        RunError: the disk is full or the place cannot be written.
    """
    foreign = read_model(Path(model))
    data = with_metadata(read_robot_file(robot_file), foreign.metadata)
    if "rate_hz" not in data:
        raise ConfigError(f"robot file {robot_file} must say rate_hz, the control steps per second")
    draft = _manifest(foreign, data)
    inputs = golden_inputs(draft)
    pairs = {**inputs, "action": _answers(foreign, inputs[INPUT], draft.robot.action)}
    files = {MODEL_FILE: _wrapped(foreign, draft.robot.action, inputs[INPUT])}
    if (network := plain_layers(foreign.proto, foreign.widths, draft.robot.action, pairs)) is not None:
        files[WEIGHTS_FILE] = network.to_bytes()
        draft = replace(draft, native=network.section)
    return publish(sealed(draft, files, pairs), target, overwrite)


def read_model(path: Path) -> ForeignModel:
    """Read and check the model.

    Raises:
        BundleError: it is no ONNX file, has state or several inputs, unknown or wrong shapes, or an old opset.
    """
    try:
        data = path.read_bytes()
        proto = onnx.load_from_string(data)
        onnx.checker.check_model(proto)
    except Exception as error:  # Protobuf and the checker raise unrelated classes.
        raise BundleError(f"{path} is no ONNX model that can be read: {error}") from error
    weights = {w.name for w in proto.graph.initializer}
    inputs = [i for i in proto.graph.input if i.name not in weights]
    if len(inputs) != 1:
        raise BundleError(
            f"{path} has inputs {[i.name for i in inputs]}: only a policy with one observation and no recurrent state "
            "can be imported; export it without the others"
        )
    (observed,) = inputs
    action = _output(path, proto)
    opset = max((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), default=0)
    if opset < _OLDEST_OPSET:
        raise BundleError(f"{path} has opset {opset}: export it again with opset {_OLDEST_OPSET} or later")
    widths = (_width(path, observed), _width(path, action))
    return ForeignModel(path, data, proto, observed.name, action.name, widths)


def _output(path: Path, proto: onnx.ModelProto) -> onnx.ValueInfoProto:
    outputs = list(proto.graph.output)
    if len(outputs) != 1:
        raise BundleError(f"{path} has outputs {[o.name for o in outputs]}: export it with the action alone")
    return outputs[0]


def _width(path: Path, value: onnx.ValueInfoProto) -> int:
    kind = value.type.tensor_type
    dims = kind.shape.dim
    sizes = [d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in dims]
    known = len(sizes) == 2 and isinstance(sizes[1], int) and sizes[1] > 0 and sizes[0] in (1, *_names(sizes[0]))
    if not known or kind.elem_type != TensorProto.FLOAT:
        raise BundleError(
            f"{path}: '{value.name}' is {TensorProto.DataType.Name(kind.elem_type)} {sizes}, expected FLOAT "
            "[1, width]: export it with one row and fixed widths"
        )
    return int(sizes[1])


def _names(size: int | str) -> tuple[str, ...]:
    """A batch axis with a name is as good as one row."""
    return (size,) if isinstance(size, str) else ()


def _manifest(foreign: ForeignModel, data: Mapping[str, Any]) -> Manifest:
    observed, acted = foreign.widths
    bare = RobotSpec(foreign.path.stem, {POLICY_KEY: ArraySpec((observed,))}, ArraySpec((acted,)), 0.0, 0)
    robot = described(bare, data)
    proto = foreign.proto
    source = {
        "imported": foreign.path.name,
        "sha256": sha256(foreign.data),
        "producer": f"{proto.producer_name} {proto.producer_version}".strip(),
        "metadata": foreign.metadata,
    }
    return Manifest(
        robot=robot,
        stage=Stage("policy", MODEL_FILE, robot.rate_hz, (POLICY_KEY,), 1, 1, 1, IMPORTED, 1, "unused"),
        normalisation={POLICY_KEY: _identity(observed), "action": _identity(acted)},
        source=source,
        files={},
        timing=replace(timing_of(robot.rate_hz, 1, 1), **timing_of_file(data)),
    )


def _identity(width: int) -> Normaliser:
    return Normaliser((0.0,) * width, (1.0,) * width)


def _answers(foreign: ForeignModel, observed: np.ndarray, limits: ArraySpec) -> np.ndarray:
    """The model's own actions, row by row, within the limits: [rows, 1, A].

    Raises:
        BundleError: one of them is not finite, or of another shape than the model says.
    """
    session = _session(foreign.path, foreign.data)
    raw = np.stack([np.asarray(session.run(None, {foreign.observation: row})[0]) for row in observed])
    if raw.shape != (len(observed), 1, foreign.widths[1]):
        raise BundleError(f"{foreign.path} returns shape {list(raw.shape[1:])}, and says [1, {foreign.widths[1]}]")
    if not np.isfinite(raw).all():
        row = int(np.argwhere(~np.isfinite(raw))[0][0])
        raise BundleError(
            f"{foreign.path} returns values that are not finite for finite observations (test row {row}): repair the "
            "model, its normaliser first, before anything moves by it"
        )
    return np.clip(raw, *_bounds(limits)).astype(np.float32)


def _wrapped(foreign: ForeignModel, limits: ArraySpec, observed: np.ndarray) -> bytes:
    """The model with our inputs and output: for any number of rows if it can be, else for one at a time."""
    for rows in ("N", 1):
        data = _with_signature(foreign, limits, rows).SerializeToString(deterministic=True)
        if rows == 1 or _takes_rows(foreign.path, data, observed):
            break
    return data


def _takes_rows(path: Path, data: bytes, observed: np.ndarray) -> bool:
    """Several rows at once give what each gives alone: a shape or a statistic over rows may be built in."""
    try:
        session = _session(path, data)
        feed = {INPUT: observed, "noise": np.zeros((len(observed), *session.get_inputs()[1].shape[1:]), np.float32)}
        whole = np.asarray(session.run(None, feed)[0])
        rows = ({k: v[i : i + 1] for k, v in feed.items()} for i in range(len(observed)))
        alone = [np.asarray(session.run(None, row)[0]) for row in rows]
    except Exception:  # Whatever ONNX Runtime has against several rows, one row is the answer.
        return False
    return np.allclose(whole, np.concatenate(alone), rtol=0, atol=TOLERANCE)


def _with_signature(foreign: ForeignModel, limits: ArraySpec, rows: int | str) -> onnx.ModelProto:
    observed, acted = foreign.widths
    # Metadata, shapes of one row in between and notes about another machine stay behind.
    model = onnx.compose.add_prefix(foreign.proto, "foreign/")
    graph, before, after = model.graph, f"foreign/{foreign.observation}", f"foreign/{foreign.action}"
    shapes = {"to_2d": (-1, observed), "to_3d": (-1, 1, acted)}
    constants = [numpy_helper.from_array(np.array(shape, np.int64), name) for name, shape in shapes.items()]
    first = helper.make_node("Reshape", [INPUT, "to_2d"], [before])
    last = [helper.make_node("Reshape", [after, "to_3d"], ["unbounded"])]
    for op, name, values in zip(("Max", "Min"), ("low", "high"), _bounds(limits), strict=True):
        constants.append(numpy_helper.from_array(values, name))
        last.append(helper.make_node(op, [last[-1].output[0], name], [f"within_{name}"]))
    last[-1].output[0] = "action"
    float_ = TensorProto.FLOAT
    whole = helper.make_graph(
        [first, *graph.node, *last],
        "policy",
        [
            helper.make_tensor_value_info(INPUT, float_, [rows, 1, observed]),
            helper.make_tensor_value_info("noise", float_, [rows, 1, acted]),
        ],
        [helper.make_tensor_value_info("action", float_, [rows, 1, acted])],
        [*graph.initializer, *constants],
    )
    return helper.make_model(
        whole, opset_imports=list(model.opset_import), functions=list(model.functions), ir_version=model.ir_version
    )


def _session(path: Path, data: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises a dozen unrelated classes for a model it cannot load.
        raise BundleError(f"ONNX Runtime {onnxruntime.__version__} cannot load {path}: {error}") from error


def _bounds(limits: ArraySpec) -> tuple[np.ndarray, np.ndarray]:
    low = np.asarray(limits.low or [-np.inf], np.float32)
    return low, np.asarray(limits.high or [np.inf], np.float32)
