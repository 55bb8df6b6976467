"""Our messages as objects of rclpy, without importing it."""

from __future__ import annotations

from typing import Any

import numpy as np

from robo_rlft.rosmsg.cdr import Message


def as_ros(kind: type[Any], message: Message) -> Any:
    """The same message as an object of a class that rosidl generated.

    Args:
        kind: that class.
        message: ours.
    """
    made = kind()
    types = kind.get_fields_and_field_types()
    for name, value in vars(message).items():
        setattr(made, name, _as_ros(getattr(made, name), value, types[name]))
    return made


def _as_ros(present: Any, value: Any, kind: str) -> Any:
    if isinstance(value, Message):
        return as_ros(type(present), value)
    if kind == "octet":  # a `byte` is bytes of length one there
        return bytes([value])
    if isinstance(value, np.ndarray):
        return value if isinstance(present, np.ndarray) else value.tolist()
    if isinstance(value, list) and value and isinstance(value[0], Message):
        return [as_ros(_class_of(kind), entry) for entry in value]
    return value


def _class_of(sequence: str) -> type[Any]:
    """`sequence<diagnostic_msgs/KeyValue>` -> that class."""
    from importlib import import_module

    package, name = sequence.removeprefix("sequence<").partition(">")[0].split("/")
    return getattr(import_module(f"{package}.msg"), name)
