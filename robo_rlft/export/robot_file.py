"""A robot described by hand, in YAML: what a checkpoint or a foreign model does not say (docs/deploy/bundle.md).

    rate_hz: 50
    joints: {names: [hip, knee], position_low: [-1, -2.5], position_high: 1.5, default: [0.1, -1.2], stiffness: 20}
    action: {meaning: joint_position_offset, scale: 0.25}
    observation:
      policy:
        terms:
        - {name: gravity, width: 3, frame: base}
        - {name: joint_pos, joints: all, offset: [0.1, -1.2]}
    timing: {hold_s: 0.5}

A single number stands for every joint or entry, null for a joint without that fact. Whatever contradicts the model or
itself is an error. Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast

import yaml

from robo_rlft.errors import ConfigError, SpecError, unknown_name
from robo_rlft.export.facts import JOINT_MEANINGS
from robo_rlft.export.timing import Timing
from robo_rlft.spec import ActionMeaning, ArraySpec, JointSpec, RobotSpec, TermSpec

Section = Mapping[str, Any]
_OFFSET = "joint_position_offset"
_FACTS = tuple(f.name for f in fields(JointSpec) if f.name not in ("name", "unit"))
_SECTIONS = ("env_id", "rate_hz", "joints", "action", "observation", "timing")
_TIMING = tuple(f.name for f in fields(Timing))
_TERM = tuple(f.name for f in fields(TermSpec))
_STEPS = ("velocity", "acceleration")
_MEANING = ("meaning", "scale", "offset", "frame", *_STEPS)
_ACTION = ("names", "units", "low", "high", *_MEANING)


def read_robot_file(path: Path | str) -> Section:
    """The file's sections as plain data.

    Raises:
        ConfigError: it cannot be read, or has a section or key nobody reads.
    """
    try:
        data = yaml.safe_load(Path(path).read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read the robot file {path}: {error}") from error
    data = {} if data is None else data
    _known(path, "section", data, _SECTIONS)
    _known(path, "key of joints", data.get("joints", {}), ("names", "units", *_FACTS))
    _known(path, "key of action", data.get("action", {}), _ACTION)
    _known(path, "key of timing", data.get("timing", {}), _TIMING)
    for key, group in _mapping(path, "observation", data.get("observation", {})).items():
        _known(path, f"key of observation.{key}", group, ("names", "units", "terms"))
        for term in _list(path, f"observation.{key}.terms", group.get("terms", [])):
            _known(path, f"key of a term of observation.{key}", term, _TERM)
    return data


def described(robot: RobotSpec, data: Section) -> RobotSpec:
    """The robot with the file's facts in place of its own, checked against its names and widths.

    Args:
        robot: what is known without the file.
        data: `read_robot_file`.

    Raises:
        ConfigError: the file contradicts the robot, or itself.
    """
    try:
        rate_hz = _rate(robot, data)
        joints = _joints(robot, data.get("joints", {}))
        action = _array(robot.action, data.get("action", {}), "action")
        meaning = _meaning(robot, joints, data.get("action", {}))
        observation = _observation(robot, joints, data.get("observation", {}))
        env_id = str(data.get("env_id", robot.env_id))
        return replace(
            robot,
            env_id=env_id,
            rate_hz=rate_hz,
            joints=joints,
            action=action,
            action_meaning=meaning,
            observation=observation,
        )
    except (SpecError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise ConfigError(f"the robot file does not fit {robot.env_id}: {error}") from error


def timing_of_file(data: Section) -> dict[str, float]:
    """The file's seconds.

    Raises:
        ConfigError: one is no positive number.
    """
    return {key: _positive(f"timing.{key}", value) for key, value in data.get("timing", {}).items()}


def _known(path: Path | str, what: str, data: Any, allowed: Sequence[str]) -> None:
    for key in _mapping(path, what, data):
        if key not in allowed:
            raise ConfigError(f"robot file {path}: {unknown_name(what, str(key), allowed)}")


def _mapping(path: Path | str, what: str, data: Any) -> Section:
    if not isinstance(data, Mapping):
        raise ConfigError(f"robot file {path}: {what} must be 'name: value' pairs, got {type(data).__name__}")
    return cast(Section, data)


def _list(path: Path | str, what: str, data: Any) -> list[Any]:
    if not isinstance(data, list):
        raise ConfigError(f"robot file {path}: {what} must be a list, got {type(data).__name__}")
    return data


def _rate(robot: RobotSpec, data: Section) -> float:
    asked = _positive("rate_hz", data.get("rate_hz", robot.rate_hz))
    if robot.rate_hz > 0 and abs(asked - robot.rate_hz) > 1e-6 * robot.rate_hz:
        raise SpecError(f"rate_hz is {asked:g} there, the policy was made for {robot.rate_hz:g} Hz")
    return asked


def _joints(robot: RobotSpec, data: Section) -> tuple[JointSpec, ...]:
    if not data:
        return robot.joints
    own = [joint.name for joint in robot.joints]
    names = list(map(str, data.get("names", own)))
    if not names:
        raise SpecError("joints has no names, and the checkpoint knows none: list them in the order of the actions")
    if own and names != own:
        raise SpecError(f"joints.names are {names}, the checkpoint has {own}: use its names in its order")
    joints = robot.joints or tuple(JointSpec(name) for name in names)
    given = {key: _numbers(f"joints.{key}", data[key], len(names), gaps=True) for key in _FACTS if key in data}
    units = _strings("joints.units", data["units"], len(names)) if "units" in data else [j.unit for j in joints]
    return tuple(
        replace(joint, unit=units[i], **{key: values[i] for key, values in given.items()})
        for i, joint in enumerate(joints)
    )


def _array(spec: ArraySpec, data: Section, what: str) -> ArraySpec:
    """Names, units and bounds of an array; a name that is there already must be the same."""
    width = spec.shape[-1]
    names = tuple(_strings(f"{what}.names", data["names"], width)) if "names" in data else spec.names
    if spec.names and names != spec.names:
        raise SpecError(f"{what}.names are {list(names)}, the checkpoint has {list(spec.names)}")
    units = tuple(_strings(f"{what}.units", data["units"], width)) if "units" in data else spec.units
    bounds = {key: tuple(_numbers(f"{what}.{key}", data[key], width)) for key in ("low", "high") if key in data}
    return replace(spec, names=names, units=units, **bounds)


def _meaning(robot: RobotSpec, joints: tuple[JointSpec, ...], data: Section) -> ActionMeaning | None:
    own, width = robot.action_meaning, robot.action.shape[0]
    if not set(_MEANING) & set(data):
        return own
    kind = str(data.get("meaning", own.kind if own else ""))
    scale = _numbers("action.scale", data.get("scale", own.scale if own else 1.0), width)
    default = [joint.default for joint in joints]
    start = default if kind == _OFFSET else own.offset if own else 0.0
    if kind in JOINT_MEANINGS and len(joints) != width:
        raise SpecError(f"action.meaning {kind} needs one joint for each of {width} actions, joints has {len(joints)}")
    if kind == _OFFSET and None in default:
        raise SpecError(f"action.meaning {kind} is relative to a default pose: give joints.default")
    offset = _numbers("action.offset", data.get("offset", start), width)
    if kind == _OFFSET and offset != default:
        raise SpecError(f"action.offset {offset} is not joints.default {default}: leave it out")
    frame = str(data.get("frame", own.frame if own else ""))
    known = {key: getattr(own, key) for key in _STEPS} if own else {}
    steps = known | {key: tuple(_numbers(f"action.{key}", data[key], width)) for key in _STEPS if key in data}
    return ActionMeaning(kind, tuple(scale), tuple(offset), frame, **steps)


def _observation(robot: RobotSpec, joints: tuple[JointSpec, ...], data: Section) -> dict[str, ArraySpec]:
    for key in data:
        if key not in robot.observation:
            raise SpecError(unknown_name("observation", key, robot.observation))
    return {key: _group(key, spec, joints, data.get(key, {})) for key, spec in robot.observation.items()}


def _group(key: str, spec: ArraySpec, joints: tuple[JointSpec, ...], data: Section) -> ArraySpec:
    named = _array(spec, data, f"observation.{key}")
    if "terms" not in data:
        return named
    terms = tuple(_term(term, [joint.name for joint in joints]) for term in data["terms"])
    names = named.names or tuple(f"{t.name}_{i}" for t in terms for i in range(t.width * t.history))
    return replace(named, terms=terms, names=names if len(names) == spec.shape[-1] else named.names)


def _term(data: Section, robot_joints: list[str]) -> TermSpec:
    name = str(data.get("name", ""))
    asked = data.get("joints", ())
    joints = tuple(robot_joints) if asked == "all" else tuple(map(str, asked))
    if unknown := [joint for joint in joints if joint not in robot_joints]:
        raise SpecError(f"term '{name}' reads joints {unknown}, which joints.names does not list")
    width = int(data.get("width", len(joints)))
    if not name or not width:
        raise SpecError(f"a term needs a name and a width (or joints), got {dict(data)}")
    lists = {
        key: tuple(_numbers(f"{key} of term '{name}'", data[key], width)) for key in ("scale", "offset") if key in data
    }
    clip = tuple(_numbers(f"clip of term '{name}'", data["clip"], 2)) if "clip" in data else ()
    history, frame = int(data.get("history", 1)), str(data.get("frame", ""))
    return TermSpec(name, width, clip=clip, history=history, frame=frame, joints=joints, **lists)


def _numbers(what: str, value: Any, width: int, gaps: bool = False) -> list[Any]:
    """Finite numbers, one per entry; with `gaps` some may be None."""
    values = [value] * width if isinstance(value, int | float) else list(value)
    _count(what, values, width)
    if not all(_is_number(x) or (gaps and x is None) for x in values):
        raise SpecError(f"{what} must be finite numbers, got {values}")
    return [None if x is None else float(x) for x in values]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _strings(what: str, value: Any, width: int) -> list[str]:
    values = [value] * width if isinstance(value, str) else list(map(str, value))
    _count(what, values, width)
    return values


def _count(what: str, values: Iterable[Any], width: int) -> None:
    if (count := len(list(values))) != width:
        raise SpecError(f"{what} lists {count} values, expected {width}")


def _positive(what: str, value: Any) -> float:
    if not _is_number(value) or value <= 0:
        raise ConfigError(f"{what} must be a positive number, got {value!r}")
    return float(value)
