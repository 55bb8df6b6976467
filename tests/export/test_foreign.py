"""Policies trained elsewhere become bundles like ours, or are refused in one sentence."""

from __future__ import annotations

import copy
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import yaml
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from robo_rlft.errors import BundleError, ConfigError, UserError
from robo_rlft.export.foreign import import_policy
from robo_rlft.export.runtime import Controller

from .test_weights import largest_error

ROBOT: dict[str, Any] = {
    "env_id": "two_legs",
    "rate_hz": 50,
    "joints": {
        "names": ["hip", "knee"],
        "position_low": [-1.0, -2.5],
        "position_high": 1.5,
        "velocity": 20,
        "effort": [30, 40],
        "default": [0.1, -1.2],
        "stiffness": 25,
        "damping": 0.5,
    },
    "action": {"meaning": "joint_position_offset", "scale": 0.25, "low": -3, "high": 3},
    "observation": {
        "policy": {
            "terms": [
                {"name": "base_ang_vel", "width": 3, "frame": "base", "scale": [0.25, 0.25, 0.25]},
                {"name": "joint_pos", "joints": "all", "offset": [0.1, -1.2], "history": 2},
                {"name": "actions", "width": 2},
            ]
        }
    },
    "timing": {"hold_s": 0.25},
}
WIDTH, ACTIONS = 9, 2
METADATA = {
    "joint_names": "hip,knee",
    "joint_stiffness": "25.000,25.000",
    "joint_damping": "0.500,0.500",
    "default_joint_pos": "0.100,-1.200",
    "action_scale": "0.250,0.250",
    "observation_names": "base_ang_vel,joint_pos,actions",
}


class Actor(nn.Module):
    """What rsl_rl exports: its normaliser, then the actor's layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.register_buffer("mean", torch.randn(1, WIDTH))
        self.register_buffer("std", torch.rand(1, WIDTH) + 0.3)
        self.net = nn.Sequential(nn.Linear(WIDTH, 16), nn.ELU(), nn.Linear(16, 12), nn.ELU(), nn.Linear(12, ACTIONS))

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        return self.net((obs - self.mean) / (self.std + 0.01))


@pytest.fixture(scope="module")
def actor() -> Actor:
    return Actor().eval()


@pytest.fixture(scope="module")
def exported_actor(actor: Actor) -> onnx.ModelProto:
    """One row, fixed shapes, as rsl_rl and mjlab write it."""
    program = torch.onnx.export(
        actor, (torch.zeros(1, WIDTH),), dynamo=True, input_names=["obs"], output_names=["actions"], verbose=False
    )
    assert program is not None
    return program.model_proto


@pytest.fixture
def files(exported_actor: onnx.ModelProto, tmp_path: Path) -> Callable[..., tuple[Path, Path, Path]]:
    """(changed robot, metadata, model) -> the paths of a model, a robot file and a bundle to be."""

    def write(
        robot: dict[str, Any] | None = None, metadata: dict[str, str] | None = None, model: Any = None
    ) -> tuple[Path, Path, Path]:
        proto = onnx.ModelProto()
        proto.CopyFrom(model or exported_actor)
        onnx.helper.set_model_props(proto, metadata or {})
        onnx.save(proto, tmp_path / "policy.onnx")
        (tmp_path / "robot.yaml").write_text(yaml.safe_dump(ROBOT if robot is None else robot))
        return tmp_path / "policy.onnx", tmp_path / "robot.yaml", tmp_path / "bundle"

    return write


Files = Callable[..., tuple[Path, Path, Path]]


def test_the_bundle_acts_as_the_actor_within_its_limits(actor: Actor, files: Files) -> None:
    controller = Controller(import_policy(*files()))
    obs = 3 * np.random.default_rng(0).standard_normal((33, 1, WIDTH)).astype(np.float32)
    action = controller.act({"policy": obs}, np.zeros((33, 1, ACTIONS), np.float32))
    with torch.no_grad():
        expected = actor.double()(torch.from_numpy(obs[:, 0]).double()).numpy().clip(-3, 3)
    actor.float()
    np.testing.assert_allclose(action[:, 0], expected, atol=1e-5)
    assert expected.std() > 0.05


def test_the_facts_are_those_of_the_file(files: Files) -> None:
    bundle = import_policy(*files())
    facts = json.loads((bundle / "runtime.json").read_text())
    assert facts["joints"]["names"] == ["hip", "knee"]
    assert facts["joints"]["position_high"] == [1.5, 1.5]
    assert facts["joints"]["acceleration"] is None
    assert facts["action"] == {
        "names": ["hip", "knee"],
        "units": ["", ""],
        "low": [-3.0, -3.0],
        "high": [3.0, 3.0],
        "meaning": "joint_position_offset",
        "scale": [0.25, 0.25],
        "offset": [0.1, -1.2],
        "frame": None,
        "velocity": None,
        "acceleration": None,
    }
    angular, positions, _ = facts["policy"]["observation"][0]["terms"]
    assert (angular["scale"], angular["frame"]) == ([0.25] * 3, "base")
    assert (positions["joints"], positions["history"], positions["width"]) == (["hip", "knee"], 2, 2)
    assert facts["timing"]["hold_s"] == 0.25
    assert facts["timing"]["latency_budget_s"] == pytest.approx(0.02)
    noted = {e.key: e.value for e in onnx.load(bundle / "policy.onnx").metadata_props}
    assert noted["joint_names"] == "hip,knee"
    assert noted["default_joint_pos"] == "0.1,-1.2"


def test_numpy_computes_the_imported_actor_from_the_files_alone(files: Files) -> None:
    bundle = import_policy(*files())
    assert json.loads((bundle / "runtime.json").read_text())["native"]["activation"] == "elu"
    assert largest_error(bundle) < 1e-5


def test_metadata_fills_what_the_file_leaves_out(files: Files) -> None:
    robot = {k: v for k, v in ROBOT.items() if k != "joints"} | {"action": {"meaning": "joint_position_offset"}}
    facts = json.loads((import_policy(*files(robot, METADATA)) / "runtime.json").read_text())
    assert facts["joints"]["stiffness"] == [25.0, 25.0]
    assert facts["action"]["offset"] == [0.1, -1.2]
    assert facts["action"]["scale"] == [0.25, 0.25]


def test_metadata_that_agrees_within_its_rounding_is_no_contradiction(files: Files) -> None:
    robot = copy.deepcopy(ROBOT)
    robot["joints"]["default"] = [0.1004, -1.2]
    facts = json.loads((import_policy(*files(robot, METADATA)) / "runtime.json").read_text())
    assert facts["joints"]["default"] == [0.1004, -1.2]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("joint_names", "knee,hip", r"joints\.names .* joint_names .* order"),
        ("joint_stiffness", "25,26", r"joints\.stiffness .* joint_stiffness"),
        ("default_joint_pos", "0.1,-1.3", r"joints\.default"),
        ("action_scale", "0.5", r"action\.scale"),
        ("joint_damping", "0.5,0.5,0.5", "3 numbers for 2 joints"),
        ("joint_damping", "soft", "comma-separated numbers"),
        ("observation_names", "joint_pos,base_ang_vel,actions", "observation_names"),
    ],
)
def test_contradicting_metadata_is_an_error(key: str, value: str, message: str, files: Files) -> None:
    with pytest.raises(ConfigError, match=message):
        import_policy(*files(None, {**METADATA, key: value}))


def _changed(path: str, value: Any) -> dict[str, Any]:
    robot = copy.deepcopy(ROBOT)
    *parents, last = path.split(".")
    place = robot
    for name in parents:
        place = place[int(name)] if isinstance(place, list) else place[name]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return robot


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("rate_hz", None, "must say rate_hz"),
        ("rate_hz", -50, "rate_hz must be a positive number"),
        ("joinst", {}, "did you mean joints"),
        ("joints.stifness", 3, "did you mean stiffness"),
        ("joints.names", ["hip"], "lists 2 values, expected 1"),
        ("joints.names", ["hip", "hip"], "stand once only"),
        ("joints.default", [0.1], "joints.default lists 1 values, expected 2"),
        ("joints.default", ["a", "b"], "finite numbers"),
        ("joints.default", None, "give joints.default"),
        ("joints.position_low", 2.0, "must be below"),
        ("joints.effort", -1, "negative"),
        ("action.meaning", "torque", "choose one of joint_position"),
        ("action.scale", [1, 2, 3], "expected 2"),
        ("action.offset", [0.0, 0.0], "leave it out"),
        ("observation.policy.terms.0.width", 4, "10 of 9 entries|lists 3 values"),
        ("observation.policy.terms.2.width", 3, "fill 10 of 9"),
        ("observation.policy.terms.1.joints", ["hip", "foot"], "'foot'"),
        ("observation.polcy", {}, "did you mean policy"),
        ("timing.hold_s", 0, "positive"),
        ("timing.hold", 1, "did you mean hold_s"),
    ],
)
def test_a_robot_file_that_does_not_fit_is_refused(path: str, value: Any, message: str, files: Files) -> None:
    with pytest.raises(UserError, match=message) as caught:
        import_policy(*files(_changed(path, value)))
    assert "\n" not in str(caught.value)


def _graph(
    inputs: dict[str, list[Any]], outputs: dict[str, list[Any]], kind: int = TensorProto.FLOAT, scale: float = 1.0
) -> onnx.ModelProto:
    """The first input times a matrix of `scale`."""
    rows, columns = next(iter(inputs.values()))[-1], next(iter(outputs.values()))[-1]
    weight = np.full((rows if isinstance(rows, int) else 1, columns if isinstance(columns, int) else 1), scale)
    value = [helper.make_tensor_value_info(n, kind, s) for n, s in inputs.items()]
    out = [helper.make_tensor_value_info(n, kind, s) for n, s in outputs.items()]
    first, (name, *others) = next(iter(inputs)), outputs
    nodes = [helper.make_node("MatMul", [first, "w"], [name])]
    nodes += [helper.make_node("Identity", [name], [other]) for other in others]
    dtype = np.float32 if kind == TensorProto.FLOAT else np.float64
    graph = helper.make_graph(nodes, "g", value, out, [numpy_helper.from_array(weight.astype(dtype), "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


OBS, ACT = [1, WIDTH], [1, ACTIONS]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (_graph({"obs": OBS, "h_in": [1, 4]}, {"actions": ACT}), r"inputs \['obs', 'h_in'\].*recurrent"),
        (_graph({"obs": OBS}, {"actions": ACT, "h_out": ACT}), r"outputs \['actions', 'h_out'\]"),
        (_graph({"obs": [1, "width"]}, {"actions": ACT}), r"'obs' is FLOAT \[1, 'width'\]"),
        (_graph({"obs": [4, WIDTH]}, {"actions": [4, ACTIONS]}), r"'obs' is FLOAT \[4, 9\], expected"),
        (_graph({"obs": OBS}, {"actions": [1, "a"]}), "'actions' is FLOAT"),
        (_graph({"obs": OBS}, {"actions": ACT}, TensorProto.DOUBLE), "is DOUBLE"),
        (_graph({"obs": OBS}, {"actions": ACT}, scale=float("nan")), "not finite for finite observations"),
    ],
)
def test_models_that_cannot_be_imported_are_refused(model: onnx.ModelProto, message: str, files: Files) -> None:
    paths = files(None, None, model)
    with pytest.raises(BundleError, match=message):
        import_policy(*paths)
    assert not paths[2].exists()


@pytest.mark.parametrize("data", [b"", b"not onnx", bytes(range(256)) * 4])
def test_other_files_are_refused(data: bytes, files: Files) -> None:
    model, robot, target = files()
    model.write_bytes(data)
    with pytest.raises(BundleError, match=r"no ONNX model that can be read|has inputs"):
        import_policy(model, robot, target)


def test_widths_of_another_robot_are_refused(files: Files) -> None:
    with pytest.raises(ConfigError, match="fill 9 of 11 entries"):
        import_policy(*files(None, None, _graph({"obs": [1, 11]}, {"actions": ACT})))


def test_a_model_for_one_row_alone_is_run_row_by_row(files: Files) -> None:
    """A mean over the batch axis: several rows at once would answer for each other."""
    model = _graph({"obs": OBS}, {"actions": ACT})
    node = model.graph.node[0]
    node.output[0] = "raw"
    model.graph.node.append(helper.make_node("ReduceMean", ["raw"], ["actions"], axes=[0], keepdims=1))
    controller = Controller(import_policy(*files(None, None, model)))
    obs = np.stack([np.full((1, WIDTH), x, np.float32) for x in (0.01, 0.02, 0.03)])
    action = controller.act({"policy": obs}, np.zeros((3, 1, ACTIONS), np.float32))
    np.testing.assert_allclose(action[:, 0, 0], WIDTH * np.array([0.01, 0.02, 0.03]), rtol=1e-5)
    assert controller.manifest.native is None


def test_the_bundle_is_the_same_when_it_is_made_again(files: Files) -> None:
    paths = files()
    before = {p.name: p.read_bytes() for p in import_policy(*paths).iterdir()}
    assert {p.name: p.read_bytes() for p in import_policy(*paths).iterdir()} == before
    buffer = io.BytesIO(before["golden.npz"])
    with np.load(buffer) as golden:
        assert len(golden["action"]) >= 8


def test_the_example_of_the_page_is_imported(tmp_path: Path) -> None:
    """The robot file as it stands there, with a model of its width."""
    page = (Path(__file__).parents[2] / "docs" / "deploy" / "bundle.md").read_text()
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "robot.yaml").write_text(example)
    onnx.save(_graph({"obs": [1, 17]}, {"actions": ACT}), tmp_path / "policy.onnx")
    robot = Controller(
        import_policy(tmp_path / "policy.onnx", tmp_path / "robot.yaml", tmp_path / "out")
    ).manifest.robot
    assert [t.name for t in robot.observation["policy"].terms][3:] == ["joint_pos", "joint_vel", "actions"]
    assert robot.joints[1].effort == 40.0
