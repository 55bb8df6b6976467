"""Numbers in messages by name: arrays that say what their entries are, and times.

An array of ROS 2 has numbers and, in its layout, labels. Ours always say the names of their entries, so that nothing is
matched by its place: the first dimension's label is the names, joined by commas. A second dimension of size 1 may hold
`stamp=<ns>`: when the sensors were read, or of a command, the stamp of the observation it answers. A reader who knows
neither still sees an ordinary array of the right length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from robo_rlft.errors import SpecError
from robo_rlft.rosmsg.cdr import Message, blank
from robo_rlft.rosmsg.known import FLOAT64_ARRAY, KNOWN

NS = 1_000_000_000
_STAMP = "stamp="


def stamp_of(message: Any) -> int:
    """Time of a message's header in ns."""
    return message.header.stamp.sec * NS + message.header.stamp.nanosec


def set_time(message: Any, stamp_ns: int) -> None:
    """Write a time or a duration."""
    message.sec, message.nanosec = divmod(stamp_ns, NS)


def labelled_array(names: Sequence[str], values: Sequence[float] | np.ndarray, stamp_ns: int) -> Message:
    """A Float64MultiArray that says what its entries are."""
    message = blank(FLOAT64_ARRAY, KNOWN)
    count = len(names)
    message.layout.dim = [
        Message(label=",".join(names), size=count, stride=count),
        Message(label=f"{_STAMP}{stamp_ns}", size=1, stride=1),
    ]
    message.data = np.asarray(values, np.float64)
    return message


def array_entries(message: Any) -> dict[str, float]:
    """Entries of an array by name.

    Raises:
        SpecError: it does not say what they are.
    """
    names = message.layout.dim[0].label.split(",") if message.layout.dim else []
    if len(names) != len(message.data) or len(set(names)) != len(names):
        raise SpecError(
            f"an array of {len(message.data)} numbers names {len(names)} entries {names[:20]}: the label of its first "
            "dimension must name each entry once, joined by commas"
        )
    return dict(zip(names, map(float, message.data), strict=True))


def array_stamp(message: Any) -> int | None:
    """The time an array says, in ns; None if it says none."""
    for dimension in message.layout.dim[1:]:
        text = dimension.label.removeprefix(_STAMP)
        if text != dimension.label and text.isdigit():
            return int(text)
    return None


def named(names: Sequence[str], values: Sequence[float] | np.ndarray, what: str) -> dict[str, float]:
    """Values by name.

    Raises:
        SpecError: not one value per name, or a name stands twice.
    """
    if len(names) != len(values) or len(set(names)) != len(names):
        raise SpecError(f"{what}: {len(values)} values for the names {list(names)[:20]}: each needs one, once")
    return dict(zip(names, map(float, values), strict=True))


def ordered(entries: Mapping[str, float], names: Sequence[str], what: str) -> np.ndarray:
    """Values in the wanted order; entries nobody asked for are left out.

    Raises:
        SpecError: a name is missing, or a value is not finite.
    """
    for name in names:
        if name not in entries:
            raise SpecError(f"{what} lacks '{name}': it has {sorted(entries)[:20]}")
        if not np.isfinite(entries[name]):
            raise SpecError(f"{what}: '{name}' is {entries[name]}")
    return np.array([entries[name] for name in names])
