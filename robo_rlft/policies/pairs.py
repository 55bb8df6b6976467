"""Whether two policies see and command the same things in the same units, so that parts of both may act together."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from robo_rlft.errors import ConfigError
from robo_rlft.policies.policy import Policy

SHARED = ("obs_norm", "action_norm", "encoders")
"""Modules that two policies must have in common."""


def check_pair(one: Policy, other: Policy, labels: Sequence[str], use: str, names: tuple[str, str]) -> None:
    """Raise `ConfigError` for the first of some settings that differs.

    Args:
        one: a policy.
        other: another.
        labels: fields of `PolicyConfig` that must be equal.
        use: what they are wanted for.
        names: what to call the two.
    """
    for label in labels:
        a, b = getattr(one.config, label), getattr(other.config, label)
        if a != b:
            raise ConfigError(f"{use}: policy.{label} is {a} in {names[0]} and {b} in {names[1]}")


def same_units(one: Policy, other: Policy) -> bool:
    """Both normalise observations and actions with the same constants, and encode images alike."""
    left, right = ({k: v for k, v in p.state_dict().items() if k.split(".")[0] in SHARED} for p in (one, other))
    return left.keys() == right.keys() and all(torch.equal(value, right[key]) for key, value in left.items())
