"""Metadata inside the ONNX files, under the keys that deployments of legged robots read, and where the model is from.

Lists are comma-separated, with every digit: programs that read them need no other file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

import onnx

from robo_rlft.export.facts import commands_joints
from robo_rlft.export.manifest import Manifest

JOINT_KEYS = {
    "joint_stiffness": "stiffness",
    "joint_damping": "damping",
    "default_joint_pos": "default",
    "joint_pos_low": "position_low",
    "joint_pos_high": "position_high",
    "joint_velocity_limit": "velocity",
    "joint_effort_limit": "effort",
}
"""Metadata key: field of `JointSpec`."""


def metadata(manifest: Manifest) -> dict[str, str]:
    """Everything that is known, by key; what is unknown has no key."""
    robot, stage = manifest.robot, manifest.stage
    terms = [term.name for key in stage.observation for term in robot.observation[key].terms]
    facts = {
        "env_id": robot.env_id,
        "rate_hz": repr(robot.rate_hz),
        "observation_names": _joined(terms),
        "action_names": _joined(robot.action.names),
        "joint_names": _joined(joint.name for joint in robot.joints),
        "run_path": str(manifest.source.get("run", "")),
        "source": json.dumps(dict(manifest.source), sort_keys=True),
    }
    commands = [term for term in terms if "command" in term]
    facts["command_names"] = _joined(commands)
    for key, label in JOINT_KEYS.items():
        values = [getattr(joint, label) for joint in robot.joints]
        facts[key] = "" if None in values else _joined(map(repr, values))
    if robot.action_meaning is not None:
        facts["action_meaning"] = robot.action_meaning.kind
        facts["action_scale"] = _joined(map(repr, robot.action_meaning.scale))
        facts["action_offset"] = _joined(map(repr, robot.action_meaning.offset))
    if commands_joints(robot):
        facts["action_names"] = facts["joint_names"]
    return {key: value for key, value in facts.items() if value}


def annotated(model: bytes, facts: Mapping[str, str]) -> bytes:
    """The model with its metadata."""
    proto = onnx.load_from_string(model)
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, dict(sorted(facts.items())))
    return proto.SerializeToString(deterministic=True)


def _joined(values: Iterable[str]) -> str:
    return ",".join(values)
