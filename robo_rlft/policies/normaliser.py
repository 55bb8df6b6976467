"""Normalisation as part of the policy, so that an exported policy needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from robo_rlft.errors import ConfigError
from robo_rlft.spec import ArraySpec

MODES = ("gaussian", "minmax", "bounds", "none")
SMALLEST_SCALE = 1e-4
"""An entry that varies less than this is shifted but not blown up."""


class Affine(nn.Module):
    """x -> (x - offset) / scale per entry, with its inverse. Both are buffers: saved, exported, never trained.

    Args:
        width: entries of the last axis.
        clip: bound of the normalised values; 0 leaves them free.
    """

    offset: Tensor
    scale: Tensor

    def __init__(self, width: int, clip: float = 0.0) -> None:
        super().__init__()
        self.clip = clip
        self.register_buffer("offset", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Normalise."""
        y = (x - self.offset) / self.scale
        return y.clamp(-self.clip, self.clip) if self.clip > 0 else y

    def inverse(self, y: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Undo `forward` (but for its clip)."""
        return y * self.scale + self.offset

    def set(self, offset: np.ndarray | Tensor, scale: np.ndarray | Tensor) -> None:
        """Take new constants; entries that hardly vary keep a scale of 1."""
        wide = torch.as_tensor(scale, dtype=torch.float64)
        wide = torch.where(wide < SMALLEST_SCALE, torch.ones_like(wide), wide)
        self.offset.copy_(torch.as_tensor(offset, dtype=torch.float64))
        self.scale.copy_(wide)


def fit(affine: Affine, mode: str, stats: Mapping[str, np.ndarray] | None, spec: ArraySpec) -> None:
    """Set an affine map from data statistics (or, for `bounds`, from the spec's limits).

    Args:
        affine: the map to set.
        mode: `gaussian`: zero mean and unit variance; `minmax`: data range to [-1, 1]; `bounds`: the spec's range to
            [-1, 1]; `none`: identity.
        stats: arrays `mean`, `std`, `min`, `max`, each [width]; not needed for `bounds` and `none`.
        spec: the array's spec.

    Raises:
        ConfigError: an unknown mode, or a mode whose input is missing.
    """
    if mode not in MODES:
        raise ConfigError(f"normaliser '{mode}' is unknown: choose one of {', '.join(MODES)}")
    if mode == "bounds":
        if not (spec.low and spec.high):
            raise ConfigError(
                "normaliser 'bounds' needs limits in the spec, which has none: choose 'minmax' or 'gaussian'"
            )
        low, high = np.asarray(spec.low), np.asarray(spec.high)
        affine.set((high + low) / 2, (high - low) / 2)
    elif mode != "none":
        if stats is None:
            raise ConfigError(f"normaliser '{mode}' needs the statistics of a data set")
        if mode == "gaussian":
            affine.set(stats["mean"], stats["std"])
        else:
            affine.set((stats["max"] + stats["min"]) / 2, (stats["max"] - stats["min"]) / 2)
