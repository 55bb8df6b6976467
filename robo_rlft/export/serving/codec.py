"""Messages of the policy server: msgpack, with numpy arrays as openpi's clients write them.

An array is the map `{b"__ndarray__": True, b"data": bytes, b"dtype": "<f4", b"shape": [2, 3]}`, a numpy scalar
`{b"__npgeneric__": True, b"data": 1.5, b"dtype": "<f4"}`. Arrays of the package msgpack-numpy (`b"nd"`, `b"type"`,
`b"kind"`, `b"shape"`, `b"data"`) are read too. Only numbers and booleans travel, nothing is pickled, and every array
must have exactly the bytes its shape asks for, so that a message can neither run code nor claim memory that it did not
bring.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from robo_rlft.errors import MissingExtraError, UserError

MAX_AXES = 8
"""Most axes of an array."""
_DTYPE = re.compile(r"[<>|=]?(?:b1|[iu][1248]|f[248])")
_ARRAY, _SCALAR, _FOREIGN = "__ndarray__", "__npgeneric__", "nd"


class CodecError(UserError):
    """Bytes that are no message of ours, or a value that cannot travel."""


def pack(message: Mapping[str, Any]) -> bytes:
    """The bytes of a message: plain data, numpy arrays and numpy scalars.

    Raises:
        CodecError: it holds something else, such as an array of objects.
        MissingExtraError: msgpack is not installed.
    """
    try:
        return msgpack().packb(message, default=_packed)
    except (TypeError, ValueError, OverflowError) as error:
        raise CodecError(f"a message can hold numbers, text and arrays of numbers only: {error}") from error


def unpack(data: bytes | bytearray | memoryview) -> dict[str, Any]:
    """The message in these bytes; its arrays are read-only views of them.

    Raises:
        CodecError: they are damaged, hold another dtype than numbers and booleans, or are no map with text as keys.
        MissingExtraError: msgpack is not installed.
    """
    library = msgpack()
    try:
        message = library.unpackb(data, object_pairs_hook=_unpacked)
    except CodecError:
        raise
    except (ValueError, TypeError, OverflowError, RecursionError, library.exceptions.UnpackException) as error:
        raise CodecError(f"a message of {len(data)} bytes is not readable as msgpack ({_reason(error)})") from error
    if not isinstance(message, dict) or not all(isinstance(key, str) for key in message):
        raise CodecError(f"a message must be a map with text as keys, got {type(message).__name__}")
    return message


def msgpack() -> ModuleType:
    """The package, or the one sentence that says what to install."""
    try:
        import msgpack as library
    except ImportError:
        raise MissingExtraError("msgpack", "serve", "the policy server and its client") from None
    return library


def _packed(value: object) -> object:
    if isinstance(value, np.ndarray):
        array = np.asarray(value, order="C")
        return {b"__ndarray__": True, b"data": array.tobytes(), b"dtype": _sent(array.dtype), b"shape": array.shape}
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": _sent(value.dtype)}
    raise TypeError(f"{type(value).__name__} cannot travel")


def _sent(dtype: np.dtype[Any]) -> str:
    if not _DTYPE.fullmatch(dtype.str):
        raise TypeError(f"an array of {dtype} cannot travel")
    return dtype.str


def _unpacked(pairs: Iterable[tuple[Any, Any]]) -> Any:
    """A map, or the array it stands for."""
    pairs = list(pairs)
    found = dict(pairs)
    if len(found) != len(pairs):
        raise CodecError("a message names one key twice")
    marks = {str(_text(key)): value for key, value in pairs}
    if _ARRAY in marks:
        return _array(marks, "dtype")
    if marks.get(_FOREIGN) is True:
        return _array(marks, "type")
    if _SCALAR in marks or (marks.get(_FOREIGN) is False and "type" in marks):
        return _scalar(marks)
    return found


def _array(fields: Mapping[str, Any], type_key: str) -> np.ndarray:
    dtype, shape, data = _received(fields.get(type_key)), fields.get("shape"), fields.get("data")
    if not isinstance(shape, list) or not all(isinstance(n, int) and n >= 0 for n in shape) or len(shape) > MAX_AXES:
        raise CodecError(f"an array's shape must be at most {MAX_AXES} counts, got {_short(shape)}")
    if not isinstance(data, bytes) or len(data) != math.prod(shape) * dtype.itemsize:
        size = len(data) if isinstance(data, bytes) else 0
        raise CodecError(
            f"an array of {dtype} {shape} must bring {math.prod(shape) * dtype.itemsize} bytes, got {size}"
        )
    return np.frombuffer(data, dtype).reshape(shape)


def _scalar(fields: Mapping[str, Any]) -> Any:
    """A plain number: of msgpack-numpy's scalars the bytes, of openpi's the value."""
    dtype, data = _received(fields.get("dtype", fields.get("type"))), fields.get("data")
    if isinstance(data, bytes) and len(data) == dtype.itemsize:
        return np.frombuffer(data, dtype)[0]
    if isinstance(data, bool | int | float):
        return dtype.type(data)
    raise CodecError(f"a scalar of {dtype} must bring a number, got {_short(data)}")


def _received(dtype: object) -> np.dtype[Any]:
    text = _text(dtype)
    if not isinstance(text, str) or not _DTYPE.fullmatch(text):
        raise CodecError(f"an array may hold numbers and booleans (f2 f4 f8 i1..i8 u1..u8 b1), got {_short(dtype)}")
    return np.dtype(text)


def _text(value: object) -> object:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _reason(error: Exception) -> str:
    return _short(str(error)).strip("'\"") or type(error).__name__
