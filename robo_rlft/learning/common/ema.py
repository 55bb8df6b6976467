"""A moving average of a module's weights."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


class EMA(Generic[M]):
    """Keeps `average`, an exponential moving average of a module's parameters; its buffers are copied.

    The decay grows as (1 + n) / (10 + n) at the start, so that the average forgets the initial weights quickly.

    Args:
        module: the module that is trained.
        decay: final decay; 0 makes the average the module's present weights.
    """

    def __init__(self, module: M, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.average: M = copy.deepcopy(module).requires_grad_(False)

    @torch.no_grad()
    def update(self, module: M) -> None:
        """Move the average towards the module's weights."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for mine, its in zip(self.average.parameters(), module.parameters(), strict=True):
            mine.lerp_(its, 1 - decay)
        for mine, its in zip(self.average.buffers(), module.buffers(), strict=True):
            mine.copy_(its)
