"""Bytes of messages against `rosbags`, which shares no code with ours, and against damage."""

from __future__ import annotations

import struct
from contextlib import suppress
from importlib import util as importlib_util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robo_rlft.errors import DataError
from robo_rlft.rosmsg.cdr import MAX_COUNT, Message, blank, decode, encode
from robo_rlft.rosmsg.definition import parse
from robo_rlft.rosmsg.known import FLOAT64_ARRAY, JOINT_STATE, KNOWN


def _sibling(name: str) -> Any:
    spec = importlib_util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib_util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


messages = _sibling("messages").messages


def _foreign(store: Any, kind: str, message: Message) -> Any:
    """The same message as an object of `rosbags`."""
    values = {}
    for field in KNOWN[kind].fields:
        value = getattr(message, field.name)
        if not field.primitive:
            made = [_foreign(store, field.type, v) for v in ([value] if field.size is None else value)]
            value = made[0] if field.size is None else made
        values[field.name] = value
    return store.types[kind](**values)


@pytest.fixture(scope="module")
def store() -> Any:
    typesys = pytest.importorskip("rosbags.typesys")
    return typesys.get_typestore(typesys.Stores.ROS2_KILTED)


@pytest.mark.parametrize("kind", KNOWN)
def test_bytes_are_those_of_an_independent_encoder(kind: str, store: Any) -> None:
    @settings(max_examples=15, deadline=None)
    @given(messages(kind))
    def check(message: Message) -> None:
        ours, theirs = encode(kind, message, KNOWN), bytes(store.serialize_cdr(_foreign(store, kind, message), kind))
        # Padding to a multiple of four at the end is the wire's, no part of a message.
        assert ours.ljust(len(theirs), b"\x00") == theirs.ljust(len(ours), b"\x00")
        assert len(ours) == len(theirs)

    check()


@pytest.mark.parametrize("kind", KNOWN)
def test_what_was_written_is_read_again(kind: str) -> None:
    @settings(max_examples=10, deadline=None)
    @given(messages(kind))
    def check(message: Message) -> None:
        data = encode(kind, message, KNOWN)
        assert encode(kind, decode(kind, data, KNOWN), KNOWN) == data

    check()


def test_a_message_by_hand() -> None:
    message = blank(JOINT_STATE, KNOWN)
    message.header.stamp.sec, message.header.stamp.nanosec, message.header.frame_id = 1, 2, "b"
    message.name, message.position = ["j"], np.array([0.5])
    expected = b"\x00\x01\x00\x00" + struct.pack("<iI", 1, 2) + struct.pack("<I2s2x", 2, b"b\0")
    expected += struct.pack("<II2s2x", 1, 2, b"j\0") + struct.pack("<I", 1)
    expected += bytes(-(len(expected) - 4) % 8) + struct.pack("<d", 0.5) + struct.pack("<II", 0, 0)
    assert encode(JOINT_STATE, message, KNOWN) == expected


def test_big_endian_is_read() -> None:
    known = parse("a/msg/A", "int32 n\nfloat64[] values")
    data = b"\x00\x00\x00\x00" + struct.pack(">iI", 7, 2) + struct.pack(">2d", 1.0, 2.0)
    message = decode("a/msg/A", data, known)
    assert (message.n, message.values.tolist()) == (7, [1.0, 2.0])


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=120), st.sampled_from(list(KNOWN)))
def test_damaged_bytes_are_refused_in_one_sentence(data: bytes, kind: str) -> None:
    # Whatever comes is a message or a DataError: any other exception fails here.
    with suppress(DataError):
        message = decode(kind, b"\x00\x01\x00\x00" + data, KNOWN)
        assert len(encode(kind, message, KNOWN)) <= len(data) + 4


@given(st.integers(0, 91))
def test_a_cut_message_is_refused(length: int) -> None:
    message = blank(FLOAT64_ARRAY, KNOWN)
    message.data = np.arange(9.0)
    data = encode(FLOAT64_ARRAY, message, KNOWN)
    assert len(data) == 4 + 3 * 4 + 4 + 9 * 8
    with pytest.raises(DataError, match="Float64MultiArray"):
        decode(FLOAT64_ARRAY, data[:length], KNOWN)


def test_an_absurd_count_takes_no_memory() -> None:
    data = b"\x00\x01\x00\x00" + struct.pack("<III", 0, 0, MAX_COUNT + 1)
    with pytest.raises(DataError, match="claims"):
        decode(FLOAT64_ARRAY, data, KNOWN)


@pytest.mark.parametrize(
    "change", [{"data": ["x"]}, {"data": None}, {"layout": 3}, {"layout": Message(dim=[Message()], data_offset=0)}]
)
def test_what_does_not_fit_is_named(change: dict[str, Any]) -> None:
    message = Message(**{**vars(blank(FLOAT64_ARRAY, KNOWN)), **change})
    with pytest.raises(DataError, match="Float64MultiArray"):
        encode(FLOAT64_ARRAY, message, KNOWN)


def test_a_fixed_array_of_another_length_is_refused() -> None:
    message = blank("sensor_msgs/msg/Imu", KNOWN)
    message.orientation_covariance = np.zeros(8)
    with pytest.raises(DataError, match="orientation_covariance has 8 entries, expected 9"):
        encode("sensor_msgs/msg/Imu", message, KNOWN)
