"""What every reader of a foreign format offers: shapes first, then one episode at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float32, Shaped

from robo_rlft.errors import DataError
from robo_rlft.spec import ArraySpec

RGB = 3


@dataclass
class Recorded:
    """One episode as the foreign format has it: T observations for T actions.

    Attributes:
        observation: rows of each key that was asked for: numbers [T, width] float32, images [T, h, w, 3] uint8.
        action: commanded at each step.
        reward: of each step, or None where the format stores none.
        success: the task was done, or None where the format does not say.
        task: instruction in words, or empty.
    """

    observation: dict[str, Shaped[np.ndarray, "step ..."]]
    action: Float32[np.ndarray, "step action"]
    reward: Float32[np.ndarray, " step"] | None = None
    success: bool | None = None
    task: str = ""


@dataclass
class Foreign:
    """An opened foreign data set.

    Attributes:
        format: name of the format.
        numbers: low-dimensional keys, flattened to vectors.
        images: cameras, as uint8 (height, width, 3).
        action: the action.
        rate_hz: recording rate, or None where the format does not store it.
        lengths: steps of each episode.
        has_reward, has_success: the source stores them.
        episodes: iterates over the episodes with the given keys only, in order, one in memory at a time.
        notes: what was assumed or left out while opening.
    """

    format: str
    numbers: Mapping[str, ArraySpec]
    images: Mapping[str, ArraySpec]
    action: ArraySpec
    rate_hz: float | None
    lengths: Sequence[int]
    has_reward: bool
    has_success: bool
    episodes: Callable[[Sequence[str]], Iterator[Recorded]]
    notes: list[str] = field(default_factory=list)


def image_spec(shape: tuple[int, ...]) -> ArraySpec | None:
    """Spec of a camera stored as (h, w, 3) or (3, h, w); None if the shape is neither (depth, masks)."""
    if len(shape) == RGB and shape[-1] == RGB:
        return ArraySpec(shape, "uint8")
    if len(shape) == RGB and shape[0] == RGB:
        return ArraySpec((*shape[1:], RGB), "uint8")
    return None


def as_frames(images: Shaped[np.ndarray, "step a b c"], what: str) -> Shaped[np.ndarray, "step height width 3"]:
    """Images in any of the stored forms as uint8, channels last.

    Floats are taken as 0..1 if none is above 1, else as 0..255.

    Raises:
        DataError: values outside 0..255.
    """
    last = images if images.shape[-1] == RGB else np.moveaxis(images, 1, -1)
    if last.dtype == np.uint8:
        return np.ascontiguousarray(last)
    low, high = float(last.min()), float(last.max())
    if not (low >= 0 and high <= np.iinfo(np.uint8).max):
        raise DataError(f"{what} holds values {low:g}..{high:g}; images must be 0..255 or 0..1")
    return np.rint(last * (np.iinfo(np.uint8).max if high <= 1 and last.dtype.kind == "f" else 1)).astype(np.uint8)


def as_numbers(rows: Shaped[np.ndarray, "step ..."]) -> Float32[np.ndarray, "step width"]:
    """Rows flattened to float32 vectors."""
    return np.ascontiguousarray(rows.reshape(len(rows), -1), np.float32)


def as_flags(rows: Bool[np.ndarray, "step ..."] | None) -> bool | None:
    """True if any row is set; None where the format has none."""
    return None if rows is None else bool(np.any(rows))
