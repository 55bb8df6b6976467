"""Definitions: their grammar, and their hashes against two other implementations."""

from __future__ import annotations

from typing import Any

import pytest

from robo_rlft.errors import DataError
from robo_rlft.rosmsg.definition import Field, bag_text, full_name, parse, type_hash, with_needed
from robo_rlft.rosmsg.known import JOINT_STATE, KNOWN


@pytest.mark.parametrize("kind", KNOWN)
def test_the_hash_is_that_of_another_implementation(kind: str) -> None:
    typesys = pytest.importorskip("rosbags.typesys")
    assert type_hash(kind, KNOWN) == typesys.get_typestore(typesys.Stores.ROS2_KILTED).hash_rihs01(kind)


def test_the_hash_of_joint_state_is_the_one_ros2_prints() -> None:
    # `ros2 topic info --verbose /joint_states` of Kilted and Jazzy.
    assert type_hash(JOINT_STATE, KNOWN) == "RIHS01_a13ee3a330e346c9d87b5aa18d24e11690752bd33a0350f11c5882bc9179260e"


def test_the_grammar() -> None:
    text = "# comment\nint32 A_CONSTANT=3\nbool flag true # why\nstring<=10[<=4] names\nfloat32[3] v\nOther other\n"
    text += "string s 'x'"
    fields = parse("pkg/msg/T", text)["pkg/msg/T"].fields
    assert fields == (
        Field("flag", "bool"),
        Field("names", "string", -1, 4, 10),
        Field("v", "float32", 3),
        Field("other", "pkg/msg/Other"),
        Field("s", "string"),
    )


def test_a_bags_text_is_read_again() -> None:
    found = parse(JOINT_STATE, bag_text(JOINT_STATE, KNOWN))
    assert set(found) == {JOINT_STATE, "std_msgs/msg/Header", "builtin_interfaces/msg/Time"}
    assert type_hash(JOINT_STATE, found) == type_hash(JOINT_STATE, KNOWN)


@pytest.mark.parametrize(
    ("name", "package", "full"),
    [
        ("Header", "a", "std_msgs/msg/Header"),
        ("Point", "geometry_msgs", "geometry_msgs/msg/Point"),
        ("std_msgs/Bool", "a", "std_msgs/msg/Bool"),
        ("std_msgs/msg/Bool", "a", "std_msgs/msg/Bool"),
        ("float64", "a", "float64"),
    ],
)
def test_names(name: str, package: str, full: str) -> None:
    assert full_name(name, package) == full


@pytest.mark.parametrize("line", ["float64", "123 x", "float64 [3] x", "float64 Bad-name"])
def test_a_bad_line_is_shown(line: str) -> None:
    with pytest.raises(DataError, match="a line that is no field"):
        parse("a/msg/A", line)


def test_a_missing_definition_is_named() -> None:
    known: Any = parse("a/msg/A", "b/B other")
    with pytest.raises(DataError, match="b/msg/B, whose definition is missing"):
        list(with_needed("a/msg/A", known))
