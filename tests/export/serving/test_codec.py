from __future__ import annotations

import contextlib

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from robo_rlft.export.serving.codec import CodecError, pack, unpack

DTYPES = hnp.integer_dtypes() | hnp.unsigned_integer_dtypes() | hnp.floating_dtypes(sizes=(16, 32, 64)) | st.just(bool)
ARRAYS = DTYPES.flatmap(lambda d: hnp.arrays(d, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)))
PLAIN = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary()
)


@given(st.dictionaries(st.text(), ARRAYS, max_size=3))
def test_arrays_come_back_as_they_went(arrays: dict[str, np.ndarray]) -> None:
    back = unpack(pack(arrays))
    assert list(back) == list(arrays)
    for key, array in arrays.items():
        assert back[key].dtype == array.dtype
        np.testing.assert_array_equal(back[key], array, strict=True)


@given(st.dictionaries(st.text(), PLAIN | st.lists(PLAIN, max_size=3) | st.dictionaries(st.text(), PLAIN, max_size=3)))
def test_plain_data_comes_back_as_it_went(message: dict[str, object]) -> None:
    marks = {"__ndarray__", "__npgeneric__", "nd"}
    if not any(marks & set(v) for v in [message, *message.values()] if isinstance(v, dict)):
        assert unpack(pack(message)) == message


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(CodecError):
        assert isinstance(unpack(data), dict)


@given(st.data())
def test_a_damaged_message_is_read_or_refused(data: st.DataObject) -> None:
    """One byte changed, the end cut off, or both."""
    whole = bytearray(pack({"policy": np.arange(6, dtype=np.float32).reshape(2, 3), "prompt": "go", "w": np.int8(3)}))
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(CodecError):
        unpack(bytes(whole[: data.draw(st.integers(0, len(whole)))]))


def test_the_bytes_are_those_of_openpi() -> None:
    """Written down by hand from msgpack's and openpi's formats."""
    array = b"\x84\xc4\x0b__ndarray__\xc3\xc4\x04data\xc4\x04\x00\x00\x80?\xc4\x05dtype\xa3<f4\xc4\x05shape\x92\x01\x01"
    scalar = b"\x83\xc4\x0d__npgeneric__\xc3\xc4\x04data\x07\xc4\x05dtype\xa3|i1"
    message = {"a": np.ones((1, 1), np.float32), "b": np.int8(7)}
    assert pack(message) == b"\x82\xa1a" + array + b"\xa1b" + scalar
    back = unpack(pack(message))
    assert back["a"].tolist() == [[1.0]]
    assert (back["b"], back["b"].dtype) == (7, np.int8)


def test_the_package_msgpack_numpy_is_read_too() -> None:
    values = np.arange(4, dtype=">i2")
    theirs = {b"nd": True, b"type": ">i2", b"kind": b"", b"shape": (2, 2), b"data": values.tobytes()}
    scalar = {b"nd": False, b"type": "<f8", b"data": np.float64(1.5).tobytes()}
    back = unpack(msgpack.packb({"x": theirs, "y": scalar}))
    np.testing.assert_array_equal(back["x"], [[0, 1], [2, 3]])
    assert back["y"] == 1.5


def test_arrays_are_views_that_nobody_can_change() -> None:
    assert not unpack(pack({"x": np.zeros(3)}))["x"].flags.writeable


def _array(**changed: object) -> bytes:
    fields = {"__ndarray__": True, "data": bytes(8), "dtype": "<f4", "shape": [2]} | changed
    return msgpack.packb({"x": {k.encode(): v for k, v in fields.items()}})


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (_array(dtype="|O"), "numbers and booleans"),
        (_array(dtype="<c8"), "numbers and booleans"),
        (_array(dtype="<f4,<f4"), "numbers and booleans"),
        (_array(dtype="|V8"), "numbers and booleans"),
        (_array(dtype="<U2"), "numbers and booleans"),
        (_array(dtype=7), "numbers and booleans"),
        (_array(shape=[3]), r"\[3\] must bring 12 bytes, got 8"),
        (_array(shape=[2**62, 2**62]), "must bring"),
        (_array(shape=[-2]), "at most 8 counts"),
        (_array(shape=[1] * 9), "at most 8 counts"),
        (_array(shape="2"), "at most 8 counts"),
        (_array(data="text"), "must bring 8 bytes, got 0"),
        (msgpack.packb({"x": {b"__npgeneric__": True, b"dtype": "<f4", b"data": "1"}}), "must bring a number"),
        (msgpack.packb({"x": {b"__npgeneric__": True, b"dtype": "|i1", b"data": 300}}), "not readable"),
        (b"\x82\xa1a\x01\xa1a\x02", "one key twice"),
        (msgpack.packb([1, 2]), "must be a map with text as keys, got list"),
        (msgpack.packb({1: 2}), "not readable"),
        (b"\x91" * 5000, "not readable"),
        (b"\xdf\xff\xff\xff\xff", "not readable"),
        (b"", "not readable"),
    ],
)
def test_what_is_no_message_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(CodecError, match=said):
        unpack(data)


@pytest.mark.parametrize("value", [np.array([None]), np.array(["a"]), np.zeros(2, "c8"), object(), 2**70, {1, 2}])
def test_what_cannot_travel_is_refused(value: object) -> None:
    with pytest.raises(CodecError, match="numbers, text and arrays of numbers only"):
        pack({"x": value})
