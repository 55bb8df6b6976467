"""What the policy's node needs to know of a bundle: the facts of its `runtime.json`, as Python objects.

Imports no torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robo_rlft.errors import BundleError, SpecError
from robo_rlft.export.facts import FORMAT, VERSION
from robo_rlft.export.manifest import RUNTIME_FILE, Manifest, read_manifest, sha256
from robo_rlft.spec import IMAGE_PREFIX, RobotSpec

JOINT_POSITIONS = ("joint_position", "joint_position_offset")
"""Meanings of an action whose targets are joint positions."""


@dataclass(frozen=True)
class Term:
    """One part of an observation: entry = scale * (raw - offset), then a clip.

    Attributes:
        name: where the raw values come from, see `observation`.
        names: of its entries, one per reading and entry.
        scale, offset: one each per entry.
        clip: lower and upper bound.
        history: readings that stand one after the other, the oldest first.
        joints: which it reads, in order; empty if it reads none.
    """

    name: str
    names: tuple[str, ...]
    scale: np.ndarray
    offset: np.ndarray
    clip: tuple[float, float] = (-math.inf, math.inf)
    history: int = 1
    joints: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """Entries of one reading."""
        return len(self.names)


@dataclass(frozen=True)
class Action:
    """What the policy commands: target = offset + scale * action.

    Attributes:
        names: of the entries.
        meaning: see `robo_rlft.runtime`'s schema.
        scale, offset: one each per entry.
        low, high: bounds of the action, infinite where there are none.
    """

    names: tuple[str, ...]
    meaning: str
    scale: np.ndarray
    offset: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def target(self, action: np.ndarray) -> np.ndarray:
        """In the units a robot takes."""
        return self.offset + self.scale * np.clip(action, self.low, self.high)

    def action(self, target: np.ndarray) -> np.ndarray:
        """Inverse of `target`: in the units of the policy and of its environment."""
        return (target - self.offset) / self.scale


@dataclass(frozen=True)
class Joints:
    """The commanded joints. Limits are infinite where a joint has none.

    Attributes:
        names: in the order of the action where it commands joints.
        position_low, position_high: rad or m.
        velocity: rad/s or m/s.
        effort: N m or N.
        default: the default pose.
    """

    names: tuple[str, ...]
    position_low: np.ndarray
    position_high: np.ndarray
    velocity: np.ndarray
    effort: np.ndarray
    default: np.ndarray


@dataclass(frozen=True)
class Timing:
    """Times in seconds.

    Attributes:
        observation_timeout_s: an observation that is older is stale: the robot holds.
        policy_timeout_s: longest time for a new chunk.
        ramp_s: from the measured pose to the policy's own targets.
        hold_s: a hold that lasts longer becomes a stop.
    """

    observation_timeout_s: float
    policy_timeout_s: float
    ramp_s: float
    hold_s: float


@dataclass(frozen=True)
class Description:
    """A bundle as the node sees it.

    Attributes:
        env_id: the robot and task.
        rate_hz: commands per second.
        action: what is commanded.
        joints: None where the action commands no joints.
        observation: the terms of each key the policy reads.
        timing: see there.
    """

    env_id: str
    rate_hz: float
    action: Action
    joints: Joints | None
    observation: Mapping[str, tuple[Term, ...]]
    timing: Timing

    @property
    def terms(self) -> Iterator[Term]:
        """Of all keys."""
        return (term for terms in self.observation.values() for term in terms)

    @property
    def commands_positions(self) -> bool:
        """Targets are joint positions."""
        return self.action.meaning in JOINT_POSITIONS


def read_description(bundle: Path | str) -> Description:
    """Read a bundle's facts.

    Raises:
        BundleError: the bundle is damaged, of another format, or does not say what its observations are made of.
    """
    folder = Path(bundle)
    manifest = read_manifest(folder)
    facts = _read_file(folder / RUNTIME_FILE, manifest)
    try:
        return _description(facts)
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{folder / RUNTIME_FILE} lacks or misstates {error}: export the bundle again") from error


def action_of(robot: RobotSpec) -> Action:
    """What an environment's action is, in the units its hardware would take."""
    meaning, action, width = robot.action_meaning, robot.action, robot.action.shape[0]
    facts = {
        "names": action.names,
        "meaning": "normalised" if meaning is None else meaning.kind,
        "scale": None if meaning is None else meaning.scale,
        "offset": None if meaning is None else meaning.offset,
        "low": action.low or None,
        "high": action.high or None,
    }
    if len(action.names) != width:
        raise SpecError(f"{robot.env_id} does not name the {width} entries of its action: nothing could be matched")
    return _action(facts)


def _read_file(path: Path, manifest: Manifest) -> dict[str, Any]:
    if not path.is_file() or path.name not in manifest.files:
        raise BundleError(f"bundle {path.parent} is incomplete, {path.name} is missing: copy or export it again")
    raw = path.read_bytes()
    if sha256(raw) != manifest.files[path.name]:
        raise BundleError(f"{path} was altered or damaged (its SHA-256 is not the one in controller.yaml)")
    facts = json.loads(raw)
    if (facts.get("format"), facts.get("version")) != (FORMAT, VERSION):
        raise BundleError(
            f"{path} has format {facts.get('format')!r} version {facts.get('version')!r}, this node reads {FORMAT!r} "
            f"version {VERSION}: export the bundle again"
        )
    return facts


def _description(facts: Mapping[str, Any]) -> Description:
    action, joints, timing = facts["action"], facts["joints"], facts["timing"]
    if action["meaning"] in JOINT_POSITIONS and (joints is None or joints["names"] != action["names"]):
        raise ValueError(f"joints: the action commands {action['names']}, which must be the joints in the same order")
    return Description(
        env_id=facts["robot"]["env_id"],
        rate_hz=float(facts["robot"]["rate_hz"]),
        action=_action(action),
        joints=None if joints is None else _joints(joints),
        observation={o["key"]: _terms(o["key"], o["terms"], o["names"]) for o in facts["policy"]["observation"]},
        timing=Timing(**{name: float(timing[name]) for name in Timing.__dataclass_fields__}),
    )


def _action(facts: Mapping[str, Any]) -> Action:
    width = len(facts["names"])
    return Action(
        names=tuple(facts["names"]),
        meaning=facts["meaning"],
        scale=_row(facts["scale"], width, 1.0),
        offset=_row(facts["offset"], width, 0.0),
        low=_row(facts["low"], width, -math.inf),
        high=_row(facts["high"], width, math.inf),
    )


def _joints(facts: Mapping[str, Any]) -> Joints:
    count = len(facts["names"])
    return Joints(
        names=tuple(facts["names"]),
        position_low=_row(facts["position_low"], count, -math.inf),
        position_high=_row(facts["position_high"], count, math.inf),
        velocity=_row(facts["velocity"], count, math.inf),
        effort=_row(facts["effort"], count, math.inf),
        default=_row(facts["default"], count, 0.0),
    )


def _terms(key: str, facts: Sequence[Mapping[str, Any]], names: Sequence[str]) -> tuple[Term, ...]:
    if not facts or key.startswith(IMAGE_PREFIX):
        raise BundleError(
            f"the bundle does not say what its observation '{key}' is made of, so no node can build it from "
            "topics: export it again with export.robot_file=FILE that lists its terms (docs/deploy/bundle.md)"
        )
    terms = []
    for fact in facts:
        width, history = int(fact["width"]), int(fact.get("history") or 1)
        own, names = names[:width], names[width * history :]
        terms.append(
            Term(
                name=fact["name"],
                names=tuple(own) or tuple(f"{fact['name']}_{i}" for i in range(width)),
                scale=_row(fact.get("scale"), width, 1.0),
                offset=_row(fact.get("offset"), width, 0.0),
                clip=_clip(fact.get("clip")),
                history=history,
                joints=tuple(fact.get("joints") or ()),
            )
        )
    return tuple(terms)


def _clip(ends: Sequence[float] | None) -> tuple[float, float]:
    low, high = ends or (-math.inf, math.inf)
    return float(low), float(high)


def _row(values: Sequence[float | None] | None, count: int, absent: float) -> np.ndarray:
    given = [None] * count if values is None else values
    if len(given) != count:
        raise ValueError(f"{len(given)} numbers where {count} are expected")
    return np.array([absent if v is None else v for v in given], np.float64)
