"""Shapes, units and dtypes of observations and actions: the one vocabulary of every layer.

A `RobotSpec` travels with an environment, a data set, a checkpoint and a controller bundle. Wherever two
of them meet, `RobotSpec.check` compares their specs and names the first difference. What only a controller needs
(joints, what an action means, what an observation is made of) is optional: absent, it is unknown and never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from robo_rlft.errors import SpecError

POLICY_KEY = "policy"
"""Observation group every policy sees: float32 vector."""
CRITIC_KEY = "critic"
"""Optional group for the value function (privileged in simulation); absent, the critic sees `policy`."""
IMAGE_PREFIX = "image/"
"""Observation keys `image/<camera>` hold uint8 images (height, width, 3)."""
MEANINGS = (
    "joint_position",
    "joint_position_offset",
    "joint_velocity",
    "joint_effort",
    "cartesian",
    "normalised",
)
"""What an action can be: targets of joints (`..._offset`: relative to the default pose), a change of the tool's pose,
or numbers only the robot's own interface gives a meaning."""


@dataclass(frozen=True)
class JointSpec:
    """One joint under the policy's command; None where a fact is not known, or there is no such limit.

    Attributes:
        name: the robot's own name of it.
        unit: `rad`, or `m` of a sliding joint; velocities and accelerations are per second of it.
        position_low: lower end of its range.
        position_high: upper end.
        velocity: largest speed.
        acceleration: largest acceleration.
        effort: largest torque in N m, or force in N.
        default: its place in the default pose.
        stiffness: kp of its position control, N m/rad or N/m.
        damping: kd, N m s/rad or N s/m.
    """

    name: str
    unit: str = "rad"
    position_low: float | None = None
    position_high: float | None = None
    velocity: float | None = None
    acceleration: float | None = None
    effort: float | None = None
    default: float | None = None
    stiffness: float | None = None
    damping: float | None = None

    def __post_init__(self) -> None:
        if self.unit not in ("rad", "m"):
            raise SpecError(f"joint '{self.name}': unit '{self.unit}' must be rad, or m of a sliding joint")
        low, high = self.position_low, self.position_high
        if low is not None and high is not None and not low < high:
            raise SpecError(f"joint '{self.name}': position_low {low:g} must be below position_high {high:g}")
        for label in ("velocity", "acceleration", "effort", "stiffness", "damping"):
            value = getattr(self, label)
            if value is not None and value < 0:
                raise SpecError(f"joint '{self.name}': {label} {value:g} is negative")


@dataclass(frozen=True)
class ActionMeaning:
    """What the entries of an action do: target = offset + scale * action.

    Attributes:
        kind: one of `MEANINGS`.
        scale: target units per unit of action, one per entry.
        offset: target of a zero action, one per entry.
        frame: of a `cartesian` action, the frame its axes belong to.
        velocity: largest change of each target per second, or empty; of joints, their own limits count.
        acceleration: largest change of that per second, or empty.
    """

    kind: str
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    frame: str = ""
    velocity: tuple[float, ...] = ()
    acceleration: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in MEANINGS:
            raise SpecError(f"action meaning '{self.kind}' is unknown: choose one of {', '.join(MEANINGS)}")
        for label in ("velocity", "acceleration"):
            values = getattr(self, label)
            if values and (len(values) != len(self.scale) or min(values) < 0):
                raise SpecError(
                    f"action {label} {list(values)}: one limit from 0 on for each of {len(self.scale)} entries"
                )


@dataclass(frozen=True)
class TermSpec:
    """One slice of an observation: entry = scale * (raw - offset), then a clip. Terms follow each other in order.

    Attributes:
        name: what it is: `gravity`, `joint_pos`.
        width: entries of one reading.
        scale: factor per entry of a reading, or empty for 1.
        offset: subtracted before that, or empty for 0.
        clip: lower and upper bound after that, or empty.
        history: readings one after the other, the oldest first.
        frame: the frame of its vectors (`base`, `world`), where it has one.
        joints: the joints it reads, in order, where it reads joints.
    """

    name: str
    width: int
    scale: tuple[float, ...] = ()
    offset: tuple[float, ...] = ()
    clip: tuple[float, ...] = ()
    history: int = 1
    frame: str = ""
    joints: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for label, wanted in (("scale", self.width), ("offset", self.width), ("clip", 2), ("joints", self.width)):
            values = getattr(self, label)
            if values and len(values) != wanted:
                raise SpecError(f"term '{self.name}' lists {len(values)} {label}, expected {wanted}")
        if self.width < 1 or self.history < 1:
            raise SpecError(f"term '{self.name}': width {self.width} and history {self.history} must be at least 1")


@dataclass(frozen=True)
class ArraySpec:
    """One array without its batch axes.

    Attributes:
        shape: shape of one element.
        dtype: numpy name of the dtype.
        names: one name per entry of the last axis, or empty when entries have no names.
        units: one unit per entry of the last axis (`m`, `rad`, `rad/s`, ``), or empty.
        low: lower bound per entry of the last axis, or empty when unbounded.
        high: upper bound per entry of the last axis, or empty when unbounded.
        terms: what the last axis is made of, in order, or empty when unknown.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"
    names: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    terms: tuple[TermSpec, ...] = ()

    def __post_init__(self) -> None:
        width = self.shape[-1] if self.shape else 1
        total = sum(term.width * term.history for term in self.terms)
        if self.terms and total != width:
            raise SpecError(f"the terms {[t.name for t in self.terms]} fill {total} of {width} entries")
        for label in ("names", "units", "low", "high"):
            values = getattr(self, label)
            if values and len(values) != width:
                raise SpecError(f"spec lists {len(values)} {label} for an array of shape {self.shape}")

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, for JSON and YAML; without terms where there are none."""
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in vars(self).items() if k != "terms"}
        return values | ({"terms": [_said(term) for term in self.terms]} if self.terms else {})

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ArraySpec:
        """Inverse of `to_dict`."""
        lists = {k: tuple(v) for k, v in data.items() if k not in ("dtype", "terms")}
        terms = tuple(_read(TermSpec, term) for term in data.get("terms", ()))
        return cls(dtype=str(data.get("dtype", "float32")), terms=terms, **lists)


@dataclass(frozen=True)
class RobotSpec:
    """What a policy sees and commands on one robot doing one task.

    Attributes:
        env_id: registered name of the environment, or a free name for recorded robot data.
        observation: one `ArraySpec` per observation key.
        action: the action of one control step.
        rate_hz: control steps per second.
        max_episode_steps: control steps before an episode is truncated.
        task: parameters that define the task (clearance, randomisation); informative, never compared.
        joints: the joints the action commands, in the robot's order, or empty when unknown; never compared.
        action_meaning: what an action does, or None when unknown; never compared.
    """

    env_id: str
    observation: Mapping[str, ArraySpec]
    action: ArraySpec
    rate_hz: float
    max_episode_steps: int
    task: Mapping[str, Any] = field(default_factory=dict)
    joints: tuple[JointSpec, ...] = ()
    action_meaning: ActionMeaning | None = None

    def __post_init__(self) -> None:
        meaning, width = self.action_meaning, self.action.shape[-1]
        if meaning is not None and {len(meaning.scale), len(meaning.offset)} != {width}:
            raise SpecError(
                f"action_meaning has {len(meaning.scale)} scales and {len(meaning.offset)} offsets for {width} entries"
            )
        names = [joint.name for joint in self.joints]
        if len(set(names)) != len(names):
            raise SpecError(f"joints {names}: every name may stand once only")

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, for JSON and YAML; joints and meaning only where they are known."""
        joints = {"joints": [_said(joint) for joint in self.joints]} if self.joints else {}
        meaning = {} if self.action_meaning is None else {"action_meaning": _said(self.action_meaning)}
        return {
            "env_id": self.env_id,
            "observation": {k: v.to_dict() for k, v in self.observation.items()},
            "action": self.action.to_dict(),
            "rate_hz": self.rate_hz,
            "max_episode_steps": self.max_episode_steps,
            "task": dict(self.task),
            **joints,
            **meaning,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RobotSpec:
        """Inverse of `to_dict`."""
        return cls(
            env_id=data["env_id"],
            observation={k: ArraySpec.from_dict(v) for k, v in data["observation"].items()},
            action=ArraySpec.from_dict(data["action"]),
            rate_hz=float(data["rate_hz"]),
            max_episode_steps=int(data["max_episode_steps"]),
            task=dict(data.get("task", {})),
            joints=tuple(_read(JointSpec, joint) for joint in data.get("joints", ())),
            action_meaning=_read(ActionMeaning, data["action_meaning"]) if "action_meaning" in data else None,
        )

    def check(self, other: RobotSpec, mine: str, theirs: str) -> None:
        """Raise `SpecError` naming the first difference that would make a policy misread its inputs.

        Compared: observation keys of `self` (the other may offer more), shapes, dtypes, names, and the rate.

        Args:
            other: the spec that must offer what `self` needs.
            mine: how to call `self` in the message, e.g. "checkpoint runs/a/last".
            theirs: how to call `other`.
        """
        for key, wanted in self.observation.items():
            if key not in other.observation:
                raise SpecError(f"{mine} needs observation '{key}'; {theirs} has {sorted(other.observation)}")
            _check_array(f"observation '{key}'", wanted, other.observation[key], mine, theirs)
        _check_array("action", self.action, other.action, mine, theirs)
        if abs(self.rate_hz - other.rate_hz) > 1e-6 * self.rate_hz:
            raise SpecError(f"{mine} runs at {self.rate_hz:g} Hz, {theirs} at {other.rate_hz:g} Hz")


def _check_array(what: str, a: ArraySpec, b: ArraySpec, mine: str, theirs: str) -> None:
    for label in ("shape", "dtype", "names"):
        left, right = getattr(a, label), getattr(b, label)
        if left != right and not (label == "names" and not (left and right)):
            raise SpecError(f"{what}: {mine} has {label} {left}, {theirs} has {right}")


_Fact = TypeVar("_Fact", JointSpec, ActionMeaning, TermSpec)


def _said(fact: JointSpec | ActionMeaning | TermSpec) -> dict[str, Any]:
    """Its fields as plain data, those that say something."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in vars(fact).items() if v not in (None, "", ())}


def _read(kind: type[_Fact], data: Mapping[str, Any]) -> _Fact:
    """Inverse of `_said`."""
    given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
    return kind(**given)
