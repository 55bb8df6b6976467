"""Definitions of ROS 2 messages: read from their text (`.msg`), and hashed as ROS 2 does (RIHS01).

A definition is what a bag stores beside its messages, so that any bag can be read without the package that
defined them. The text's grammar is that of rosidl; constants and default values take no part in a message's bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from robo_rlft.errors import DataError

PRIMITIVES: Mapping[str, int] = {
    "int8": 2,
    "uint8": 3,
    "int16": 4,
    "uint16": 5,
    "int32": 6,
    "uint32": 7,
    "int64": 8,
    "uint64": 9,
    "float32": 10,
    "float64": 11,
    "char": 3,
    "bool": 15,
    "byte": 16,
    "string": 17,
}
"""Primitive types and their numbers in REP 2016's type descriptions; `char` is a uint8 there."""
_NESTED, _ARRAY, _BOUNDED, _UNBOUNDED = 1, 48, 96, 144
_BOUNDED_STRING = 21
_SEPARATOR = re.compile(r"^=+\s*$", re.MULTILINE)
_FIELD = re.compile(
    r"^(?P<type>[A-Za-z][\w/]*)(?:<=(?P<chars>\d+))?(?P<array>\[(?P<bound><=)?(?P<size>\d*)\])?\s+(?P<name>[a-z]\w*)(?P<rest>.*)$"
)
_CONSTANT = re.compile(r"^[A-Za-z]\w*(<=\d+)?\s+[A-Z][A-Z0-9_]*\s*=")


@dataclass(frozen=True)
class Field:
    """One entry of a message.

    Attributes:
        name: of the entry.
        type: a primitive's name, or the full name of a message (`std_msgs/msg/Header`).
        size: None for one value, n for a fixed array of n, -1 for a sequence.
        bound: longest sequence, 0 without a bound.
        chars: longest string, 0 without a bound.
    """

    name: str
    type: str
    size: int | None = None
    bound: int = 0
    chars: int = 0

    @property
    def primitive(self) -> bool:
        """It holds no other message."""
        return self.type in PRIMITIVES


@dataclass(frozen=True)
class Definition:
    """One message type.

    Attributes:
        name: full name, `sensor_msgs/msg/JointState`.
        fields: in the order of their bytes.
        text: what it was read from.
    """

    name: str
    fields: tuple[Field, ...]
    text: str


Definitions = Mapping[str, Definition]
"""By full name."""


def full_name(name: str, package: str) -> str:
    """`Header` in `sensor_msgs` -> `std_msgs/msg/Header`: names within a package, and the short form `pkg/Name`.

    Args:
        name: as a field says it.
        package: of the message that holds the field.
    """
    if name in PRIMITIVES:
        return name
    parts = name.split("/")
    if len(parts) == 1:
        return f"std_msgs/msg/{name}" if name == "Header" else f"{package}/msg/{name}"
    return name if len(parts) == 3 else f"{parts[0]}/msg/{parts[1]}"


def parse(name: str, text: str) -> dict[str, Definition]:
    """Read a definition and those it needs, as a bag stores them: separated by lines of `=`, each with `MSG: name`.

    Args:
        name: full name of the first.
        text: the definitions.

    Raises:
        DataError: a line is none of a field, a constant, a comment.
    """
    first, *others = _SEPARATOR.split(text)
    found = {name: _definition(name, first)}
    for part in others:
        head, _, body = part.strip().partition("\n")
        own = full_name(head.removeprefix("MSG:").strip(), "")
        found[own] = _definition(own, body)
    return found


def with_needed(name: str, known: Definitions) -> Iterator[Definition]:
    """The definition and all it is made of, each once, itself first.

    Raises:
        DataError: one is not known.
    """
    waiting, seen = [name], set[str]()
    while waiting:
        current = waiting.pop(0)
        if current in seen:
            continue
        seen.add(current)
        if current not in known:
            raise DataError(f"{name} is made of {current}, whose definition is missing")
        yield known[current]
        waiting += [f.type for f in known[current].fields if not f.primitive]


def bag_text(name: str, known: Definitions) -> str:
    """The text that `parse` reads: the definition and all it needs."""
    first, *others = with_needed(name, known)
    line = "=" * 80
    return first.text.strip() + "".join(f"\n{line}\nMSG: {_short(d.name)}\n{d.text.strip()}" for d in others) + "\n"


def type_hash(name: str, known: Definitions) -> str:
    """`RIHS01_...` of a message type: SHA-256 of its type description (REP 2011, REP 2016)."""
    first, *others = with_needed(name, known)
    described = {
        "type_description": _described(first),
        "referenced_type_descriptions": [_described(d) for d in sorted(others, key=lambda d: d.name)],
    }
    return f"RIHS01_{hashlib.sha256(json.dumps(described).encode()).hexdigest()}"


def _short(name: str) -> str:
    return name.replace("/msg/", "/")


def _definition(name: str, text: str) -> Definition:
    package = name.partition("/")[0]
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    fields = tuple(_field(name, line, package) for line in lines if line and not _CONSTANT.match(line))
    return Definition(name, fields, text)


def _field(owner: str, line: str, package: str) -> Field:
    match = _FIELD.match(line)
    if match is None:
        raise DataError(f"the definition of {owner} has a line that is no field: {line!r}")
    kind, size, bound = full_name(match["type"], package), None, 0
    if match["array"]:
        bound = int(match["size"]) if match["bound"] else 0
        size = -1 if match["bound"] or not match["size"] else int(match["size"])
    return Field(match["name"], kind, size, bound, int(match["chars"] or 0))


def _described(definition: Definition) -> dict[str, object]:
    # An empty message has one byte in the structures of C, and so in its description.
    fields = definition.fields or (Field("structure_needs_at_least_one_member", "uint8"),)
    return {"type_name": definition.name, "fields": [{"name": f.name, "type": _described_type(f)} for f in fields]}


def _described_type(field: Field) -> dict[str, object]:
    base = PRIMITIVES.get(field.type, _NESTED)
    if field.chars:
        base = _BOUNDED_STRING
    if field.size is not None:
        base += _BOUNDED if field.bound else _UNBOUNDED if field.size < 0 else _ARRAY
    return {
        "type_id": base,
        "capacity": field.bound or max(field.size or 0, 0),
        "string_capacity": field.chars,
        "nested_type_name": "" if field.primitive else field.type,
    }
