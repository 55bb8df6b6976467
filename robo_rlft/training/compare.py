"""Settings as plain data: flattened to dotted keys, compared, and checked against a checkpoint's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any, cast

from robo_rlft.errors import CheckpointError

ABSENT = "(not set)"
"""Stands for a value in messages about a key only one side has."""
Difference = tuple[str, Any, Any]
"""(dotted key, old value, new value)"""


def plain(config: Any) -> dict[str, Any]:
    """Settings, a dataclass or a mapping, as nested dicts, lists, numbers and strings."""
    value = asdict(cast(Any, config)) if is_dataclass(config) else dict(config)
    return json.loads(json.dumps(value))


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys: `{"a": {"b": 1}, "c": {}}` becomes `{"a.b": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat


def differences(old: Mapping[str, Any], new: Mapping[str, Any], free: Sequence[str] = ()) -> Iterator[Difference]:
    """Every differing entry of two flat mappings, except keys equal to or under one of `free`."""
    for key in dict.fromkeys([*old, *new]):
        left, right = old.get(key, ABSENT), new.get(key, ABSENT)
        if left != right and not _under(key, free):
            yield key, left, right


def check_contradictions(
    meta: Mapping[str, Any], overrides: Mapping[str, Any], *, free: Sequence[str] = (), where: str = "the checkpoint"
) -> None:
    """Refuse policy settings, given by the user, that are not those a checkpoint was trained with.

    Args:
        meta: the checkpoint's description of itself; `policy` holds the settings it was trained with.
        overrides: what the user set explicitly, nested or by dotted key; only keys under `policy` are looked at.
        free: dotted keys or prefixes that may differ (`policy.chain` when fine-tuning changes the chain).
        where: how to call the checkpoint.

    Raises:
        CheckpointError: naming the key and both values.
    """
    trained = flatten({"policy": meta["policy"]})
    asked = {key: value for key, value in flatten(overrides).items() if key in trained}
    for key, theirs, mine in differences({key: trained[key] for key in asked}, asked, free):
        raise CheckpointError(
            f"{key}={mine} contradicts {where}, which was trained with {key}={theirs}: leave the setting out, "
            f"or train again with it"
        )


def _under(key: str, prefixes: Sequence[str]) -> bool:
    return any(key == prefix or key.startswith(f"{prefix}.") for prefix in prefixes)
