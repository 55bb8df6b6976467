"""Learning-rate schedules as functions of the fraction done: nothing to step, nothing to save."""

from __future__ import annotations

import math

from torch.optim import Optimizer


def cosine(fraction: float, start: float, end: float, warmup: float = 0.0) -> float:
    """A linear rise over the first `warmup` of the run, then half a cosine from `start` to `end`.

    Args:
        fraction: share of the run done, 0..1.
        start: peak value.
        end: final value.
        warmup: share of the run spent rising from `start` / 100.
    """
    if fraction < warmup:
        return start * max(fraction / warmup, 0.01)
    x = min((fraction - warmup) / max(1 - warmup, 1e-9), 1.0)
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * x))


def set_lr(optimiser: Optimizer, lr: float) -> None:
    """Use this learning rate from now on."""
    for group in optimiser.param_groups:
        group["lr"] = lr
