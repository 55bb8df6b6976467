"""Statistics of a data set, from which policies build their own normalisation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from robo_rlft.data.store import Dataset
from robo_rlft.errors import DataError

ACTION_KEY = "action"
_ROWS_AT_ONCE = 1 << 16
_FRAMES_AT_ONCE = 64


@dataclass(frozen=True)
class Stats:
    """Statistics over all rows, per entry; for images per colour channel, in units of the stored values (0..255).

    Attributes:
        mean: mean.
        std: standard deviation of the population (divided by the count).
        min: smallest value.
        max: largest value.
    """

    mean: Float64[np.ndarray, "*entry"]
    std: Float64[np.ndarray, "*entry"]
    min: Float64[np.ndarray, "*entry"]
    max: Float64[np.ndarray, "*entry"]


def compute_stats(dataset: Dataset, keys: Sequence[str] | None = None) -> dict[str, Stats]:
    """Statistics of observation keys and of "action", in float64, a block of rows at a time.

    Args:
        dataset: the data set.
        keys: observation keys; all by default, images included.

    Raises:
        DataError: the data set is empty.
    """
    if dataset.num_steps == 0:
        raise DataError(f"data set {dataset.path} is empty: record episodes before computing statistics")
    used = list(dataset.robot.observation if keys is None else keys)
    low = {k: dataset.observation(k) for k in used if k not in dataset.images}
    stats = {key: _stats(_blocks(rows)) for key, rows in {**low, ACTION_KEY: dataset.action}.items()}
    for key, frames in ((k, dataset.images[k]) for k in used if k in dataset.images):
        blocks = (frames[i : i + _FRAMES_AT_ONCE] for i in range(0, len(frames), _FRAMES_AT_ONCE))
        stats[key] = _stats(block.reshape(-1, block.shape[-1]) for block in blocks)
    return stats


def _blocks(rows: np.ndarray) -> Iterable[np.ndarray]:
    return (rows[i : i + _ROWS_AT_ONCE] for i in range(0, len(rows), _ROWS_AT_ONCE))


def _stats(blocks: Iterable[np.ndarray]) -> Stats:
    """Combine blocks by the pairwise update of Chan, Golub & LeVeque (1979): no cancellation at large means."""
    count, mean, squares, low, high = 0, np.float64(0), np.float64(0), np.float64(np.inf), np.float64(-np.inf)
    for raw in blocks:
        block = raw.astype(np.float64)
        n, block_mean = len(block), block.mean(0)
        delta = block_mean - mean
        squares = squares + ((block - block_mean) ** 2).sum(0) + delta**2 * (count * n / (count + n))
        mean = mean + delta * (n / (count + n))
        count += n
        low, high = np.minimum(low, block.min(0)), np.maximum(high, block.max(0))
    return Stats(np.asarray(mean), np.sqrt(squares / count), np.asarray(low), np.asarray(high))
