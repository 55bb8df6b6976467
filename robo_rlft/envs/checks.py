"""What every backend asks of its inputs: actions that are finite and fit, rows that exist."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Integer
from torch import Tensor

from robo_rlft.errors import SpecError
from robo_rlft.spec import ArraySpec


def checked_actions(env_id: str, spec: ArraySpec, actions: Tensor, shape: tuple[int, ...]) -> np.ndarray:
    """Actions as numpy, clipped to their bounds.

    Args:
        env_id: for the message.
        spec: the action of one step, with its bounds.
        actions: [N, A] or [N, H, A].
        shape: what is expected.

    Raises:
        SpecError: another shape, integers, or a value that is not finite.
    """
    if tuple(actions.shape) != shape:
        raise SpecError(f"{env_id} got actions of shape {tuple(actions.shape)}: expected {shape}")
    if not actions.is_floating_point():
        raise SpecError(f"{env_id} got actions of type {actions.dtype}: expected floating point numbers")
    values = actions.detach().to("cpu", torch.float64).numpy()
    if not np.isfinite(values).all():
        raise SpecError(_not_finite(env_id, spec, values))
    low = np.asarray(spec.low or -np.inf, np.float64)
    high = np.asarray(spec.high or np.inf, np.float64)
    return np.clip(values, low, high)


def checked_ids(ids: Sequence[int] | None, count: int) -> Integer[np.ndarray, " row"]:
    """Rows as distinct integers below `count`; None stands for all, a mask of bool for those that are True.

    Raises:
        SpecError: they are something else.
    """
    if ids is None:
        return np.arange(count)
    rows = np.atleast_1d(np.asarray(ids))
    if rows.dtype == bool and rows.shape == (count,):
        return np.flatnonzero(rows)
    valid = rows.ndim == 1 and (rows.dtype.kind in "iu" or not rows.size)
    if not valid or ((rows < 0) | (rows >= count)).any() or len(np.unique(rows)) != rows.size:
        raise SpecError(f"ids are {list(np.ravel(rows))}: expected distinct integers from 0 to {count - 1}")
    return rows.astype(np.int64)


def checked_variants(
    variants: Sequence[int], names: Sequence[str], rows: Integer[np.ndarray, " row"]
) -> Integer[np.ndarray, " row"]:
    """One variant of `names` for each row.

    Raises:
        SpecError: there is no such variant, or not one for each row.
    """
    chosen, known = np.asarray(variants), len(names)
    if chosen.shape != rows.shape or chosen.dtype.kind not in "iu" or ((chosen < 0) | (chosen >= known)).any():
        raise SpecError(
            f"variants are {chosen.tolist()}: expected {len(rows)} integers from 0 to {known - 1}, numbers of "
            f"{', '.join(names)}"
        )
    return chosen


def _not_finite(env_id: str, spec: ArraySpec, values: np.ndarray) -> str:
    at = tuple(np.argwhere(~np.isfinite(values))[0])
    when = f", step {at[1]} of the chunk" if len(at) == 3 else ""
    name = f" ('{spec.names[at[-1]]}')" if spec.names else ""
    return (
        f"{env_id} got the action {values[at]} for entry {at[-1]}{name} of environment {at[0]}{when}: actions must be "
        "finite, look for a NaN in the policy's output"
    )
