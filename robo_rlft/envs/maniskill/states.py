"""The physics of ManiSkill's scenes as rows of numbers, and back: poses, velocities, what controllers aim at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from robo_rlft.errors import SpecError

Tree = dict[str, Any]


def rows(env: Any) -> Float[Tensor, "env entry"]:
    """The state of every environment."""
    return torch.cat([_flat(leaf) for leaf in _leaves(env.get_state_dict())], dim=1)


def restore_rows(env: Any, values: Float[Tensor, "row entry"], ids: Int[Tensor, " row"]) -> None:
    """Write rows of `rows` into environments `ids`, whose objects must be those of the rows.

    Args:
        env: ManiSkill's environment.
        values: one row each.
        ids: which.

    Raises:
        SpecError: the rows belong to scenes with other objects.
    """
    like = env.get_state_dict()
    expected = sum(_flat(leaf).shape[1] for leaf in _leaves(like))
    if values.shape[1] != expected:
        raise SpecError(f"a saved state has {values.shape[1]} entries, this scene {expected}: it is another's")
    tree, _ = _filled(like, values)
    controller, present = tree.pop("controller", None), like.get("controller")
    env.set_state_dict(tree, ids)
    if controller is not None and present is not None:
        env.agent.set_controller_state(_mapped(present, controller, lambda old, new: old.index_copy(0, ids, new)))


def row(tree: Mapping[str, Any], index: int) -> Tree:
    """One environment's part of `get_state_dict`, as that of a scene with one environment on the CPU."""
    return {k: row(v, index) if isinstance(v, Mapping) else v[index : index + 1].cpu() for k, v in tree.items()}


def _flat(leaf: Any) -> Float[Tensor, "env entry"]:
    values = torch.as_tensor(leaf)
    return values.reshape(values.shape[0], -1).to(torch.float32)


def _leaves(tree: Mapping[str, Any]) -> list[Any]:
    return [leaf for v in tree.values() for leaf in (_leaves(v) if isinstance(v, Mapping) else [v])]


def _filled(tree: Mapping[str, Any], values: Float[Tensor, "row entry"]) -> tuple[Tree, Float[Tensor, "row rest"]]:
    """A tree like this one with the first entries of `values`, and those left over."""
    filled: Tree = {}
    for key, leaf in tree.items():
        if isinstance(leaf, Mapping):
            filled[key], values = _filled(leaf, values)
        else:
            width = _flat(leaf).shape[1]
            filled[key], values = values[:, :width].reshape(len(values), *leaf.shape[1:]), values[:, width:]
    return filled, values


def _mapped(left: Mapping[str, Any], right: Mapping[str, Any], act: Callable[[Tensor, Tensor], Tensor]) -> Tree:
    return {k: _mapped(v, right[k], act) if isinstance(v, Mapping) else act(v, right[k]) for k, v in left.items()}
