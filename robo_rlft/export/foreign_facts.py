"""The metadata of a foreign ONNX file beside a robot file: it fills gaps, and a contradiction is an error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from robo_rlft.errors import ConfigError

NUMBERS = {
    "default_joint_pos": ("joints", "default"),
    "joint_stiffness": ("joints", "stiffness"),
    "joint_damping": ("joints", "damping"),
    "action_scale": ("action", "scale"),
}
"""Metadata of mjlab's exports: section and key of the robot file that say the same."""
ROUNDING = 5.1e-4
"""Exporters write three decimals."""


def with_metadata(data: Mapping[str, Any], metadata: Mapping[str, str]) -> dict[str, Any]:
    """The robot file with what only the metadata says.

    Args:
        data: `robot_file.read_robot_file`.
        metadata: of the model, by key; lists are comma-separated.

    Raises:
        ConfigError: the two say different things, or metadata that is needed cannot be read.
    """
    whole = {**data, "joints": dict(data.get("joints", {})), "action": dict(data.get("action", {}))}
    _names(whole, metadata)
    _terms(data, metadata)
    for key, (section, name) in NUMBERS.items():
        if key in metadata:
            said = _floats(key, metadata[key], len(whole["joints"].get("names", ())))
            theirs = said[0] if len(said) == 1 else said
            whole[section].setdefault(name, theirs)
            _check_numbers(f"{section}.{name}", whole[section][name], key, said)
    return {key: value for key, value in whole.items() if value != {}}


def _names(whole: dict[str, Any], metadata: Mapping[str, str]) -> None:
    names = _words(metadata.get("joint_names", ""))
    if not names:
        return
    mine = whole["joints"].setdefault("names", names)
    if list(mine) != names:
        raise ConfigError(
            f"joints.names of the robot file are {list(mine)}, the model's metadata joint_names are {names}: "
            "the order is that of the model's actions"
        )


def _terms(data: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    names = _words(metadata.get("observation_names", ""))
    groups = list(data.get("observation", {}).values())
    mine = [term.get("name") for group in groups for term in group.get("terms", ())]
    if names and mine and mine != names:
        raise ConfigError(
            f"the terms of the robot file are {mine}, the model's metadata observation_names are {names}: name them "
            "so, in this order"
        )


def _check_numbers(what: str, mine: Any, key: str, theirs: Sequence[float]) -> None:
    values = [mine] * len(theirs) if isinstance(mine, int | float) else list(mine)
    expected = list(theirs) * len(values) if len(theirs) == 1 else list(theirs)
    if len(values) != len(expected) or not all(map(_same, values, expected)):
        raise ConfigError(
            f"{what} of the robot file is {mine}, the model's metadata {key} is {list(theirs)}: correct the file, "
            "or leave it out there"
        )


def _same(mine: Any, theirs: float) -> bool:
    return isinstance(mine, int | float) and math.isclose(mine, theirs, rel_tol=1e-6, abs_tol=ROUNDING)


def _floats(key: str, text: str, joints: int) -> list[float]:
    """One number, or one per joint where joints are named."""
    try:
        values = [float(word) for word in _words(text)]
    except ValueError as error:
        raise ConfigError(f"the model's metadata {key} holds {text!r}, expected comma-separated numbers") from error
    if len(values) not in (1, joints or len(values)):
        raise ConfigError(f"the model's metadata {key} holds {len(values)} numbers for {joints} joints")
    return values


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
