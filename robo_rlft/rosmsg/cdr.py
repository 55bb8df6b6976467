"""Messages to bytes and back: CDR version 1 as ROS 2 writes it (OMG DDSI-RTPS, 10.2; alignment from the 5th byte on).

A message is anything with attributes named like the fields, such as an object of rclpy; `decode` makes `Message`.
Sequences of numbers become numpy arrays.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from robo_rlft.errors import DataError
from robo_rlft.rosmsg.definition import Definitions, Field

HEADER = b"\x00\x01\x00\x00"
"""CDR, little endian."""
_FORMATS = {
    "int8": "b",
    "uint8": "B",
    "char": "B",
    "byte": "B",
    "bool": "?",
    "int16": "h",
    "uint16": "H",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "uint64": "Q",
    "float32": "f",
    "float64": "d",
}
_SIZES = {name: struct.calcsize(code) for name, code in _FORMATS.items()}
_ZEROS = {"string": "", "bool": False, "float32": 0.0, "float64": 0.0}
MAX_COUNT = 1 << 26
"""Longest sequence that is believed; longer ones are damage."""


class Message(SimpleNamespace):
    """A message as its fields."""


def blank(name: str, known: Definitions) -> Message:
    """A message with zeros, empty strings and empty sequences."""
    return Message(**{field.name: _blank_value(field, known) for field in known[name].fields})


def encode(name: str, message: Any, known: Definitions) -> bytes:
    """The bytes of a message, its header of 4 bytes included.

    Raises:
        DataError: a value does not fit its field.
    """
    writer = _Writer(known)
    try:
        writer.message(name, message)
    except (struct.error, AttributeError, TypeError, ValueError) as error:
        raise DataError(f"a message does not fit {name}: {error}") from error
    return HEADER + bytes(writer.data)


def decode(name: str, data: bytes, known: Definitions) -> Message:
    """The message in these bytes.

    Raises:
        DataError: they are cut off, or of another encoding.
    """
    if len(data) < len(HEADER) or data[0] or data[1] not in (0, 1):
        raise DataError(f"a message of {name} begins with {data[:4].hex()}: only plain CDR can be read")
    try:
        return _Reader(memoryview(data)[len(HEADER) :], "<" if data[1] else ">", known).message(name)
    except (struct.error, UnicodeDecodeError, IndexError) as error:
        raise DataError(f"a message of {name} is damaged or of another definition: {error}") from error


def _blank_value(field: Field, known: Definitions) -> Any:
    single = _ZEROS.get(field.type, 0) if field.primitive else blank(field.type, known)
    if field.size is None:
        return single
    count = max(field.size, 0)
    if field.type in _FORMATS:
        return np.zeros(count, _FORMATS[field.type])
    return [single if field.primitive else blank(field.type, known) for _ in range(count)]


class _Writer:
    def __init__(self, known: Definitions) -> None:
        self.known, self.data = known, bytearray()

    def message(self, name: str, message: Any) -> None:
        fields = self.known[name].fields
        if not fields:
            self.data += b"\x00"
        for field in fields:
            self.field(field, getattr(message, field.name))

    def field(self, field: Field, value: Any) -> None:
        if field.size is None:
            self.single(field.type, value)
            return
        if field.size >= 0 and len(value) != field.size:
            raise ValueError(f"{field.name} has {len(value)} entries, expected {field.size}")
        if field.bound and len(value) > field.bound:
            raise ValueError(f"{field.name} has {len(value)} entries, at most {field.bound} are allowed")
        if field.size < 0:
            self.single("uint32", len(value))
        if field.type in _FORMATS:
            self.numbers(field.type, value)
        else:
            for entry in value:
                self.single(field.type, entry)

    def numbers(self, kind: str, values: Sequence[Any]) -> None:
        if len(values):
            self.align(_SIZES[kind])
            self.data += np.asarray(values).astype("<" + _FORMATS[kind]).tobytes()

    def single(self, kind: str, value: Any) -> None:
        if kind == "string":
            text = value.encode() + b"\x00"
            self.single("uint32", len(text))
            self.data += text
        elif kind in _FORMATS:
            self.align(_SIZES[kind])
            # rclpy holds a `byte` as bytes of length one.
            number = value[0] if isinstance(value, bytes) else value
            self.data += struct.pack("<" + _FORMATS[kind], number)
        else:
            self.message(kind, value)

    def align(self, size: int) -> None:
        self.data += bytes(-len(self.data) % size)


class _Reader:
    def __init__(self, data: memoryview, order: str, known: Definitions) -> None:
        self.data, self.order, self.known, self.at = data, order, known, 0

    def message(self, name: str) -> Message:
        fields = self.known[name].fields
        if not fields:
            self.at += 1
        return Message(**{field.name: self.field(field) for field in fields})

    def field(self, field: Field) -> Any:
        if field.size is None:
            return self.single(field.type)
        count = self.single("uint32") if field.size < 0 else field.size
        if count > MAX_COUNT:
            raise struct.error(f"{field.name} claims {count} entries")
        if field.type in _FORMATS:
            return self.numbers(field.type, count)
        return [self.single(field.type) for _ in range(count)]

    def numbers(self, kind: str, count: int) -> np.ndarray:
        if not count:
            return np.zeros(0, _FORMATS[kind])
        self.align(_SIZES[kind])
        return np.frombuffer(self.take(count * _SIZES[kind]), self.order + _FORMATS[kind])

    def single(self, kind: str) -> Any:
        if kind == "string":
            return str(self.take(self.single("uint32"))[:-1], "utf-8")
        if kind in _FORMATS:
            self.align(_SIZES[kind])
            return struct.unpack(self.order + _FORMATS[kind], self.take(_SIZES[kind]))[0]
        return self.message(kind)

    def align(self, size: int) -> None:
        self.at += -self.at % size

    def take(self, count: int) -> memoryview:
        part = self.data[self.at : self.at + count]
        if len(part) != count:
            raise struct.error(f"{count} bytes are needed, {len(part)} are left")
        self.at += count
        return part
