"""The physics of one ManiSkill scene as one vector, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from robo_rlft.errors import SpecError


def flatten(env: Any) -> Float[np.ndarray, " entry"]:
    """Poses and velocities of all that moves, and what the controllers aim at."""
    parts = [np.asarray(leaf, np.float32).reshape(-1) for leaf in _leaves(env.get_state_dict())]
    return np.concatenate(parts)


def restore(env: Any, values: Float[np.ndarray, " entry"], steps: int) -> None:
    """Write a vector of `flatten` into a scene that was reset with the same seed.

    Args:
        env: ManiSkill's environment.
        values: the vector.
        steps: control steps that led there.

    Raises:
        SpecError: it belongs to a scene with other objects.
    """
    like = env.get_state_dict()
    if values.size != (expected := sum(leaf.numel() for leaf in _leaves(like))):
        raise SpecError(f"a saved state has {values.size} entries where this scene needs {expected}: it is another's")
    tree, _ = _filled(like, torch.from_numpy(np.array(values, np.float32)))
    env.set_state_dict(tree)
    if "controller" in tree:
        env.agent.set_controller_state(tree["controller"])
    env.elapsed_steps[:] = steps


def _leaves(tree: Mapping[str, Any]) -> list[Any]:
    return [leaf for v in tree.values() for leaf in (_leaves(v) if isinstance(v, Mapping) else [v])]


def _filled(tree: Mapping[str, Any], values: torch.Tensor) -> tuple[dict[str, Any], torch.Tensor]:
    """A tree of the same shapes with the first of `values`, and those left over."""
    filled: dict[str, Any] = {}
    for key, leaf in tree.items():
        if isinstance(leaf, Mapping):
            filled[key], values = _filled(leaf, values)
        else:
            filled[key], values = values[: leaf.numel()].reshape(leaf.shape), values[leaf.numel() :]
    return filled, values
