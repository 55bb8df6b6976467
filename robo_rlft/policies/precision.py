"""The precision networks are computed in: one switch for rollout and update, densities and values stay in float32."""

from __future__ import annotations

import torch

PRECISIONS = ("float32", "bfloat16")


def computing_in(precision: str, device: torch.device) -> torch.autocast:
    """Inside the block, matrix products and what follows them run in this precision."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
