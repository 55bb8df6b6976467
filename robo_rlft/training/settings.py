"""The settings of a run as a flat table, read from the typed tree and its docstrings.

The command line's `--help`, `robo-rlft list settings` and the error messages all read this one table, so an
explanation stands once: in the docstring of the dataclass that owns the field.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache
from typing import Any, get_type_hints

from robo_rlft.training.config import Config


@dataclass(frozen=True)
class Setting:
    """One leaf of the configuration tree.

    Attributes:
        key: dotted path, e.g. `ppo.gamma`.
        type: its type as written in a dataclass: `float`, `list[int]`.
        default: its default value.
        doc: its explanation, one paragraph.
    """

    key: str
    type: str
    default: Any
    doc: str


@cache
def settings() -> dict[str, Setting]:
    """Every setting by key, in the order of the dataclasses."""
    return {s.key: s for s in _walk(Config, "")}


@cache
def groups() -> tuple[str, ...]:
    """Every key that holds further settings: `ppo`, `policy.network` ..."""
    parents = (key.rsplit(".", 1)[0] for key in settings() if "." in key)
    inner = {parent[:end] for parent in parents for end in _prefix_ends(parent)}
    return tuple(sorted(inner))


def is_open(key: str) -> bool:
    """Whether `key` lies inside a free dictionary (`env.params.clearance`), whose names the environment decides."""
    return any(key.startswith(f"{s.key}.") for s in settings().values() if s.type.startswith("dict"))


def under(prefix: str) -> list[Setting]:
    """Settings whose key is `prefix` or lies below it; all of them for an empty prefix."""
    return [s for s in settings().values() if not prefix or s.key == prefix or s.key.startswith(f"{prefix}.")]


def _walk(node: type, prefix: str) -> Iterator[Setting]:
    hints, docs = get_type_hints(node), _attribute_docs(node)
    for entry in fields(node):
        key, kind = f"{prefix}{entry.name}", hints[entry.name]
        if is_dataclass(kind) and isinstance(kind, type):
            yield from _walk(kind, f"{key}.")
        else:
            yield Setting(key, _type_name(kind), _default(entry), docs.get(entry.name, ""))


def _default(entry: Field[Any]) -> Any:
    return entry.default_factory() if entry.default_factory is not MISSING else entry.default


def _type_name(kind: Any) -> str:
    return (
        kind.__name__ if isinstance(kind, type) and not hasattr(kind, "__args__") else str(kind).replace("typing.", "")
    )


def _prefix_ends(key: str) -> list[int]:
    return [m.start() for m in re.finditer(r"\.", key)] + [len(key)]


def _attribute_docs(node: type) -> dict[str, str]:
    """The `Attributes:` section of a docstring as name -> explanation."""
    section = (inspect.getdoc(node) or "").partition("Attributes:\n")[2]
    entries = re.split(r"\n(?=    \w+: )", "\n" + section)
    pairs = (entry.strip().partition(": ") for entry in entries if ": " in entry)
    return {name: " ".join(text.split()) for name, _, text in pairs}
