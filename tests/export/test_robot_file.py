"""Facts by hand for a policy of ours: they replace those of the checkpoint, limits included, or contradict it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from robo_rlft.errors import ConfigError, UserError
from robo_rlft.export.robot_file import described, read_robot_file, timing_of_file
from robo_rlft.spec import JointSpec, RobotSpec

from .conftest import ROBOT

KNOWN = replace(ROBOT, joints=(JointSpec("left_joint", position_low=-1.0), JointSpec("right_joint")))


def written(folder: Path, data: Any) -> Path:
    (folder / "robot.yaml").write_text(yaml.safe_dump(data))
    return folder / "robot.yaml"


def test_single_facts_replace_those_of_the_checkpoint(tmp_path: Path) -> None:
    file = read_robot_file(written(tmp_path, {"joints": {"velocity": [2, None], "units": "m"}}))
    left, right = described(KNOWN, file).joints
    assert left == JointSpec("left_joint", "m", position_low=-1.0, velocity=2.0)
    assert right == JointSpec("right_joint", "m")


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "robot.yaml").write_text("")
    assert described(KNOWN, read_robot_file(tmp_path / "robot.yaml")) == KNOWN
    assert timing_of_file({}) == {}


def test_steps_of_a_target_without_joints_are_limited_by_hand(tmp_path: Path) -> None:
    data = {"action": {"meaning": "cartesian", "velocity": [0.1, 0.2], "acceleration": 1}}
    meaning = described(ROBOT, read_robot_file(written(tmp_path, data))).action_meaning
    assert meaning is not None
    assert (meaning.velocity, meaning.acceleration) == ((0.1, 0.2), (1.0, 1.0))
    with pytest.raises(ConfigError, match="one limit from 0 on"):
        described(ROBOT, {"action": {"meaning": "cartesian", "velocity": -1}})


def test_limits_of_the_action_are_replaced(tmp_path: Path) -> None:
    file = read_robot_file(written(tmp_path, {"action": {"low": [-5, -1], "high": 1, "meaning": "joint_effort"}}))
    robot = described(KNOWN, file)
    assert (robot.action.low, robot.action.high) == ((-5.0, -1.0), (1.0, 1.0))
    assert robot.action_meaning is not None
    assert robot.action_meaning.offset == (0.0, 0.0)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"joints": {"names": ["right_joint", "left_joint"]}}, "use its names in its order"),
        ({"rate_hz": 40}, r"rate_hz is 40 there, the policy was made for 50 Hz"),
        ({"action": {"names": ["a", "b"]}}, r"action\.names .* the checkpoint has \['left', 'right'\]"),
        ({"observation": {"critc": {}}}, "unknown observation 'critc'.*critic"),
        ({"joints": [1]}, "must be 'name: value' pairs"),
        ([1], "must be 'name: value' pairs"),
    ],
)
def test_what_contradicts_the_checkpoint_is_refused(data: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        described(KNOWN, read_robot_file(written(tmp_path, data)))


@pytest.mark.parametrize("text", ["a: [", "\x00"])
def test_what_is_no_yaml_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "robot.yaml").write_text(text)
    with pytest.raises(ConfigError, match="cannot read the robot file"):
        read_robot_file(tmp_path / "robot.yaml")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        read_robot_file(tmp_path / "nowhere.yaml")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=6,
)


def sections(*keys: str) -> st.SearchStrategy[Any]:
    """Some of the keys with anything behind them, or anything else."""
    return VALUES | st.dictionaries(st.sampled_from(keys), VALUES, max_size=4)


TERMS = st.lists(sections("name", "width", "scale", "clip", "history", "joints", "frame"), max_size=3)
FILES = st.fixed_dictionaries(
    {},
    optional={
        "rate_hz": VALUES,
        "joints": sections("names", "units", "default", "velocity", "position_low"),
        "action": sections("names", "low", "meaning", "scale", "offset", "frame", "velocity"),
        "observation": VALUES | st.fixed_dictionaries({"policy": VALUES | st.fixed_dictionaries({"terms": TERMS})}),
        "timing": sections("hold_s", "ramp_s"),
    },
)


@given(data=FILES)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_anything_is_read_or_refused_in_one_sentence(data: Any, tmp_path: Path) -> None:
    try:
        file = read_robot_file(written(tmp_path, data))
        timing_of_file(file)
        robot = described(KNOWN, file)
    except UserError:
        return
    assert RobotSpec.from_dict(json.loads(json.dumps(robot.to_dict()))) == robot
