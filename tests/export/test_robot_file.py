"""Facts by hand for a policy of ours: they replace those of the checkpoint, limits included, or contradict it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from robo_rlft.errors import ConfigError
from robo_rlft.export.robot_file import described, read_robot_file, timing_of_file
from robo_rlft.spec import JointSpec

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
