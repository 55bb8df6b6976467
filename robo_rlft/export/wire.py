"""Messages between the policy's process and its parent: length-prefixed JSON, then the bytes of numpy arrays.

    uint32 length | JSON {"kind": ..., "fields": {...}, "arrays": [[name, dtype, shape], ...]} | array bytes ...

Nothing is pickled: a message cannot run code. Imports no torch.
"""

from __future__ import annotations

import json
import math
import os
import select
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

LENGTH = struct.Struct(">I")
MAX_HEADER = 1 << 20
"""Longest header in bytes; a longer one is not ours."""
_KINDS = "fiub"
"""numpy kinds of arrays that may travel: numbers and booleans."""


class ClosedError(Exception):
    """The other side is gone."""


class LateError(Exception):
    """The other side did not answer in time."""


@dataclass(frozen=True)
class Message:
    """One message.

    Attributes:
        kind: what it is: `act`, `action`, `error` ...
        fields: plain data.
        arrays: arrays by name.
    """

    kind: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)


def send(descriptor: int, message: Message) -> None:
    """Write one message.

    Raises:
        ClosedError: nobody reads any more.
        ValueError: an array holds something else than numbers.
    """
    arrays = {name: np.asarray(a, order="C") for name, a in message.arrays.items()}
    for array in arrays.values():
        _check_kind(array.dtype)
    header = {
        "kind": message.kind,
        "fields": message.fields,
        "arrays": [[name, a.dtype.str, a.shape] for name, a in arrays.items()],
    }
    text = json.dumps(header).encode()
    data = b"".join([LENGTH.pack(len(text)), text, *(a.tobytes() for a in arrays.values())])
    try:
        _write(descriptor, data)
    except BrokenPipeError as error:
        raise ClosedError from error


def receive(descriptor: int, timeout_s: float | None = None) -> Message:
    """Read one message.

    Args:
        descriptor: open for reading.
        timeout_s: longest silence to bear, in seconds; None waits for ever.

    Raises:
        ClosedError: the other side is gone, also in the middle of a message.
        LateError: it was silent for longer than `timeout_s`.
        ValueError: what came is not a message.
    """
    (length,) = LENGTH.unpack(_read(descriptor, LENGTH.size, timeout_s))
    if length > MAX_HEADER:
        raise ValueError(f"a header of {length} bytes is not one of ours")
    header = json.loads(_read(descriptor, length, timeout_s))
    arrays = {
        str(name): _array(descriptor, np.dtype(dtype), tuple(shape), timeout_s)
        for name, dtype, shape in header["arrays"]
    }
    return Message(header["kind"], header["fields"], arrays)


def _array(descriptor: int, dtype: np.dtype[Any], shape: tuple[int, ...], timeout_s: float | None) -> np.ndarray:
    _check_kind(dtype)
    data = _read(descriptor, math.prod(shape) * dtype.itemsize, timeout_s)
    return np.frombuffer(data, dtype).reshape(shape)


def _check_kind(dtype: np.dtype[Any]) -> None:
    if dtype.kind not in _KINDS:
        raise ValueError(f"an array of {dtype} cannot travel")


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _read(descriptor: int, size: int, timeout_s: float | None) -> bytearray:
    data = bytearray(size)
    view, got = memoryview(data), 0
    while got < size:
        if timeout_s is not None and not select.select([descriptor], [], [], timeout_s)[0]:
            raise LateError
        count = os.readv(descriptor, [view[got:]])
        if count == 0:
            raise ClosedError
        got += count
    return data
