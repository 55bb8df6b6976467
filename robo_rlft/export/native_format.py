"""The format of `weights.safetensors`, whoever trained the network. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from safetensors.numpy import save

FLOW_MLP, MLP = "flow_mlp", "mlp"
"""Kinds: Euler's method on a velocity, or one call that gives the action."""


@dataclass(frozen=True)
class NativeNetwork:
    """A policy without its graph.

    Attributes:
        section: `native` of the manifest and of `runtime.json`.
        tensors: float32, by name.
    """

    section: Mapping[str, Any]
    tensors: Mapping[str, np.ndarray]

    def to_bytes(self) -> bytes:
        """The content of `weights.safetensors`."""
        return save(dict(self.tensors))
