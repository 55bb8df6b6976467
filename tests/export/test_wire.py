from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from robo_rlft.export.wire import LENGTH, ClosedError, LateError, Message, receive, send

ARRAYS = arrays_of.arrays(
    st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_]),
    arrays_of.array_shapes(min_dims=0, min_side=0),
)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            continue


@given(st.dictionaries(st.text(max_size=8), ARRAYS, max_size=3), st.dictionaries(st.text(), st.integers(), max_size=3))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_message_arrives_as_it_was_sent(
    pipe: tuple[int, int], arrays: dict[str, np.ndarray], fields: dict[str, int]
) -> None:
    send(pipe[1], Message("any", fields, arrays))
    got = receive(pipe[0], 1.0)
    assert (got.kind, dict(got.fields), list(got.arrays)) == ("any", fields, list(arrays))
    for name, array in arrays.items():
        assert (got.arrays[name].dtype, got.arrays[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(got.arrays[name], array)


def test_a_message_larger_than_the_pipe_arrives(pipe: tuple[int, int]) -> None:
    big = np.random.default_rng(0).standard_normal((500, 1000))
    writer = threading.Thread(target=send, args=(pipe[1], Message("big", {}, {"x": big})))
    writer.start()
    np.testing.assert_array_equal(receive(pipe[0], 5.0).arrays["x"], big)
    writer.join()


def test_silence_and_ends_are_told_apart(pipe: tuple[int, int]) -> None:
    with pytest.raises(LateError):
        receive(pipe[0], 0.01)
    os.write(pipe[1], LENGTH.pack(10) + b"half")
    with pytest.raises(LateError):
        receive(pipe[0], 0.01)
    os.close(pipe[1])
    with pytest.raises(ClosedError):
        receive(pipe[0], 0.01)


def test_a_reader_that_is_gone_is_noticed(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    with pytest.raises(ClosedError):
        send(pipe[1], Message("any"))


def test_bytes_of_another_protocol_are_refused(pipe: tuple[int, int]) -> None:
    os.write(pipe[1], b"GET / HTTP/1.1\r\n")
    with pytest.raises(ValueError, match="not one of ours"):
        receive(pipe[0], 1.0)


def test_objects_do_not_travel(pipe: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="cannot travel"):
        send(pipe[1], Message("any", {}, {"x": np.array([object()])}))
    header = b'{"kind": "any", "fields": {}, "arrays": [["x", "|O", [1]]]}'
    os.write(pipe[1], LENGTH.pack(len(header)) + header)
    with pytest.raises(ValueError, match="cannot travel"):
        receive(pipe[0], 1.0)
