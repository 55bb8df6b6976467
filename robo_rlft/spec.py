"""Shapes, units and dtypes of observations and actions: the one vocabulary of every layer.

A `RobotSpec` travels with an environment, a data set, a checkpoint and a controller bundle. Wherever two
of them meet, `RobotSpec.check` compares their specs and names the first difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from robo_rlft.errors import SpecError

POLICY_KEY = "policy"
"""Observation group every policy sees: float32 vector."""
CRITIC_KEY = "critic"
"""Optional group for the value function (privileged in simulation); absent, the critic sees `policy`."""
IMAGE_PREFIX = "image/"
"""Observation keys `image/<camera>` hold uint8 images (height, width, 3)."""


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
    """

    shape: tuple[int, ...]
    dtype: str = "float32"
    names: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        width = self.shape[-1] if self.shape else 1
        for label in ("names", "units", "low", "high"):
            values = getattr(self, label)
            if values and len(values) != width:
                raise SpecError(f"spec lists {len(values)} {label} for an array of shape {self.shape}")

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, for JSON and YAML."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in vars(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ArraySpec:
        """Inverse of `to_dict`."""
        lists = {k: tuple(v) for k, v in data.items() if k != "dtype"}
        return cls(dtype=str(data.get("dtype", "float32")), **lists)


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
    """

    env_id: str
    observation: Mapping[str, ArraySpec]
    action: ArraySpec
    rate_hz: float
    max_episode_steps: int
    task: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, for JSON and YAML."""
        return {
            "env_id": self.env_id,
            "observation": {k: v.to_dict() for k, v in self.observation.items()},
            "action": self.action.to_dict(),
            "rate_hz": self.rate_hz,
            "max_episode_steps": self.max_episode_steps,
            "task": dict(self.task),
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
