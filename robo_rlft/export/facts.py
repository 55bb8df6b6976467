"""`runtime.json`: the facts of `controller.yaml` for programs without a YAML parser (schema: docs/deploy/bundle.md).

UTF-8 JSON with floats in full precision. What is not known is `null`, and never guessed; JSON has no infinity, so an
entry without a limit is `null` too. Imports no torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from robo_rlft.export.manifest import GOLDEN_FILE, Manifest, ResidualStage, Stage, input_dtype
from robo_rlft.spec import ArraySpec, JointSpec, RobotSpec, TermSpec

FORMAT, VERSION = "robo_rlft.runtime", 1
JOINT_MEANINGS = ("joint_position", "joint_position_offset", "joint_velocity", "joint_effort")
"""Meanings whose entries command one joint each."""
_JOINT_LISTS = tuple(f.name for f in fields(JointSpec) if f.name not in ("name", "unit"))


def runtime_json(manifest: Manifest) -> bytes:
    """The text of `runtime.json`; `manifest.files` are those it names."""
    facts = {
        "format": FORMAT,
        "version": VERSION,
        "robot": {"env_id": manifest.robot.env_id, "rate_hz": manifest.robot.rate_hz},
        "action": _action(manifest.robot),
        "joints": _joints(manifest.robot.joints),
        "policy": _policy(manifest),
        "residual": _residual(manifest),
        "timing": vars(manifest.timing),
        "native": manifest.native,
        "golden": {
            "file": GOLDEN_FILE,
            "tolerance": manifest.tolerance,
            "action_scale": list(manifest.action_scale(manifest.stage.units)),
        },
        "files": dict(manifest.files),
    }
    return (json.dumps(facts, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()


def commands_joints(robot: RobotSpec) -> bool:
    """Each entry of an action commands the joint at its place in the list of joints."""
    meaning = robot.action_meaning
    return meaning is not None and meaning.kind in JOINT_MEANINGS and len(robot.joints) == robot.action.shape[0]


def _action(robot: RobotSpec) -> dict[str, Any]:
    """Names of joints where it commands joints, so that a program can match them with the robot's own."""
    action, meaning, width = robot.action, robot.action_meaning, robot.action.shape[0]
    names = [joint.name for joint in robot.joints] if commands_joints(robot) else list(action.names)
    return {
        "names": names or [f"action_{i}" for i in range(width)],
        "units": list(action.units) or [""] * width,
        "low": _finite(action.low),
        "high": _finite(action.high),
        "meaning": "normalised" if meaning is None else meaning.kind,
        "scale": [1.0] * width if meaning is None else list(meaning.scale),
        "offset": [0.0] * width if meaning is None else list(meaning.offset),
        "frame": meaning.frame or None if meaning is not None else None,
        "velocity": list(meaning.velocity) or None if meaning is not None else None,
        "acceleration": list(meaning.acceleration) or None if meaning is not None else None,
    }


def _joints(joints: Sequence[JointSpec]) -> dict[str, Any] | None:
    if not joints:
        return None
    named = {"names": [joint.name for joint in joints], "units": [joint.unit for joint in joints]}
    return named | {label: _known([getattr(joint, label) for joint in joints]) for label in _JOINT_LISTS}


def _policy(manifest: Manifest) -> dict[str, Any]:
    stage = manifest.stage
    return {
        "file": stage.file,
        "rate_hz": stage.rate_hz,
        "chunk": stage.chunk,
        "execute": stage.execute,
        "obs_horizon": stage.obs_horizon,
        "observation": _observation(manifest.robot, stage),
        "chain": stage.chain,
        "steps": stage.steps,
        "noise": stage.noise,
        "guidance": stage.guidance,
        "units": stage.units,
        "rtc": stage.rtc,
        "prefix": stage.prefix,
    }


def _residual(manifest: Manifest) -> dict[str, Any] | None:
    stage = manifest.residual
    if stage is None:
        return None
    return {"file": stage.file, "rate_hz": stage.rate_hz, "observation": _observation(manifest.robot, stage)}


def _observation(robot: RobotSpec, stage: Stage | ResidualStage) -> list[dict[str, Any]]:
    return [_group(key, robot.observation[key]) for key in stage.observation]


def _group(key: str, spec: ArraySpec) -> dict[str, Any]:
    return {
        "key": key,
        "dtype": input_dtype(f"observation/{key}"),
        "shape": list(spec.shape),
        "width": spec.shape[0] if len(spec.shape) == 1 else None,
        "names": list(spec.names),
        "terms": [_term(term) for term in spec.terms],
    }


def _term(term: TermSpec) -> dict[str, Any]:
    return {
        "name": term.name,
        "width": term.width,
        "scale": list(term.scale) or None,
        "offset": list(term.offset) or None,
        "clip": list(term.clip) or None,
        "history": term.history,
        "frame": term.frame or None,
        "joints": list(term.joints) or None,
    }


def _finite(bounds: Sequence[float]) -> list[float | None] | None:
    return _known([x if math.isfinite(x) else None for x in bounds])


def _known(values: Sequence[float | None]) -> list[float | None] | None:
    """The list, or None where it says nothing."""
    return None if all(value is None for value in values) else list(values)
