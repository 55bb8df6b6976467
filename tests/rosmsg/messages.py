"""Hypothesis strategies that fill any known message type."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from robo_rlft.rosmsg.cdr import Message
from robo_rlft.rosmsg.definition import Field
from robo_rlft.rosmsg.known import KNOWN

_RANGES = {"int32": (-(2**31), 2**31 - 1), "uint32": (0, 2**32 - 1), "byte": (0, 127)}


def messages(kind: str) -> st.SearchStrategy[Message]:
    """Messages of a type."""
    return st.fixed_dictionaries({f.name: _value(f) for f in KNOWN[kind].fields}).map(lambda d: Message(**d))


def _value(field: Field) -> st.SearchStrategy:
    single = _single(field.type)
    if field.size is None:
        return single
    rows = st.lists(single, min_size=max(field.size, 0), max_size=field.size if field.size >= 0 else 5)
    return rows.map(lambda r: np.array(r, field.type)) if field.type in ("float32", "float64") else rows


def _single(kind: str) -> st.SearchStrategy:
    if kind in _RANGES:
        return st.integers(*_RANGES[kind])
    if kind in ("float32", "float64"):
        return st.floats(width=int(kind[-2:]))
    if kind == "string":
        return st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12)
    return st.booleans() if kind == "bool" else messages(kind)
