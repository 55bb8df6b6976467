"""From readings by name to the rows a policy reads: which terms, in which order, scaled, clipped, with their history.

A term is filled by its name, whatever the order in which a robot tells things:

    ang_vel, base_ang_vel               the IMU's angular velocity, in the frame of the base, rad/s
    gravity, projected_gravity          the direction of gravity in that frame, from the IMU's orientation
    command, velocity_commands          forward, left and yaw velocity asked for
    joint_pos, joint_pos_rel            measured positions of the term's joints (the term's offset makes them relative)
    joint_vel, joint_vel_rel            measured velocities of the term's joints
    last_action, actions                what the policy gave last
    any other                           entries of that name, which the robot tells as an array

Imports no torch.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice

import numpy as np

from robo_rlft.export.robot.description import Description, Term
from robo_rlft.spec import ArraySpec


class Source(StrEnum):
    """Where a term's raw values come from."""

    JOINTS = "joint_states"
    IMU = "imu"
    COMMAND = "command_velocity"
    ARRAY = "observation"
    OWN = "own"


_ANG_VEL, _GRAVITY = ("ang_vel", "base_ang_vel"), ("gravity", "projected_gravity")
_COMMAND = ("command", "velocity_commands")
_POSITION, _VELOCITY = ("joint_pos", "joint_pos_rel"), ("joint_vel", "joint_vel_rel")
_ACTION = ("last_action", "actions")
_SOURCES = {
    **dict.fromkeys((*_ANG_VEL, *_GRAVITY), Source.IMU),
    **dict.fromkeys(_COMMAND, Source.COMMAND),
    **dict.fromkeys((*_POSITION, *_VELOCITY), Source.JOINTS),
    **dict.fromkeys(_ACTION, Source.OWN),
}


def source(term: Term) -> Source:
    """Where a term comes from."""
    return _SOURCES.get(term.name, Source.ARRAY)


def told_names(spec: ArraySpec) -> tuple[str, ...]:
    """Entries of an environment's observation that neither joints nor an IMU nor whoever steers can tell."""
    names, told = iter(spec.names), []
    for term in spec.terms:
        own = list(islice(names, term.width * term.history))
        told += own if term.name not in _SOURCES else []
    return tuple(told) if spec.terms else spec.names


@dataclass
class Readings:
    """The newest of everything a robot told, by name; nothing is told before it is.

    Attributes:
        position, velocity: of joints, rad or m.
        ang_vel: of the base in its frame, rad/s.
        gravity: its direction in the base's frame, of length 1.
        command: forward, left, yaw velocity asked for; zero if nobody asks.
        told: entries of the robot's array.
        action: what the policy gave last.
    """

    position: dict[str, float] = field(default_factory=dict)
    velocity: dict[str, float] = field(default_factory=dict)
    ang_vel: Sequence[float] = ()
    gravity: Sequence[float] = ()
    command: Sequence[float] = (0.0, 0.0, 0.0)
    told: dict[str, float] = field(default_factory=dict)
    action: Sequence[float] = ()

    def raw(self, term: Term) -> np.ndarray:
        """The raw values of a term, one per entry.

        Raises:
            KeyError: one was not told, by its name.
        """
        name = term.name
        if name in _POSITION + _VELOCITY:
            told = self.position if name in _POSITION else self.velocity
            return np.array([told[joint] for joint in term.joints])
        vectors = {
            **dict.fromkeys(_ANG_VEL, self.ang_vel),
            **dict.fromkeys(_GRAVITY, self.gravity),
            **dict.fromkeys(_COMMAND, self.command),
            **dict.fromkeys(_ACTION, self.action),
        }
        if name not in vectors:
            return np.array([self.told[entry] for entry in term.names])
        if len(vectors[name]) != term.width:
            raise KeyError(name)
        return np.asarray(vectors[name], np.float64)


class ObservationBuilder:
    """Rows for `Runtime.observe`, one per control step.

    Args:
        description: of the bundle.
    """

    def __init__(self, description: Description) -> None:
        self._observation = description.observation
        self.sources = frozenset(source(term) for term in description.terms)
        self.told = tuple(name for term in description.terms if source(term) is Source.ARRAY for name in term.names)
        self.joints = tuple(
            dict.fromkeys(j for term in description.terms if source(term) is Source.JOINTS for j in term.joints)
        )
        self.names = _row_names(description.observation)
        self.reset()

    def reset(self) -> None:
        """Forget the history of all terms."""
        self._history: dict[tuple[str, int], deque[np.ndarray]] = {}

    def rows(self, readings: Readings) -> dict[str, np.ndarray]:
        """The observation of this control step, float32 by key; call it once per step.

        Raises:
            KeyError: something was not told, by its name.
        """
        # First all values, then the histories: a missing one must leave none of them a step ahead.
        values = {key: [self._entry(t, readings) for t in terms] for key, terms in self._observation.items()}
        return {
            key: np.concatenate([self._stacked((key, i), t, values[key][i]) for i, t in enumerate(terms)])
            for key, terms in self._observation.items()
        }

    def _entry(self, term: Term, readings: Readings) -> np.ndarray:
        value = term.scale * (readings.raw(term) - term.offset)
        return np.clip(value, *term.clip).astype(np.float32)

    def _stacked(self, at: tuple[str, int], term: Term, value: np.ndarray) -> np.ndarray:
        rows = self._history.setdefault(at, deque([value] * term.history, maxlen=term.history))
        rows.append(value)
        return np.concatenate(list(rows))


def _row_names(observation: Mapping[str, Sequence[Term]]) -> tuple[str, ...]:
    """Of all entries of all rows, each once: an older reading is `name@-1`, a name of several keys is `key/name`."""
    entries = [
        (key, name if age == 0 else f"{name}@-{age}")
        for key, terms in observation.items()
        for term in terms
        for age in reversed(range(term.history))
        for name in term.names
    ]
    count = Counter(name for _, name in entries)
    return tuple(name if count[name] == 1 else f"{key}/{name}" for key, name in entries)


def gravity_of(x: float, y: float, z: float, w: float) -> np.ndarray:
    """The direction of gravity in the frame of a body with this orientation in the world: R^T (0, 0, -1).

    Raises:
        ValueError: the quaternion is of no length: nobody measured an orientation.
    """
    norm = np.sqrt(x * x + y * y + z * z + w * w)
    if not 0.5 < norm < 2.0:
        raise ValueError("the orientation is no quaternion of length 1")
    x, y, z, w = x / norm, y / norm, z / norm, w / norm
    return np.array([2 * (w * y - x * z), -2 * (y * z + w * x), 2 * (x * x + y * y) - 1])
