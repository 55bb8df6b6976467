"""Layers shared by the networks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn


def mlp(
    width_in: int, hidden: Sequence[int], width_out: int, *, last_scale: float = 1.0, norm: bool = False
) -> nn.Sequential:
    """Linear layers with SiLU between them; the last one's initial weights are multiplied by `last_scale`.

    With `norm` there is a LayerNorm before each SiLU.
    """
    widths = [width_in, *hidden]
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), *([nn.LayerNorm(b)] if norm else []), nn.SiLU()]
    last = nn.Linear(widths[-1], width_out)
    with torch.no_grad():
        last.weight.mul_(last_scale)
        last.bias.mul_(last_scale)
    return nn.Sequential(*layers, last)


def hidden(net: nn.Sequential, x: Tensor) -> Tensor:
    """What the last layer sees. A slice of the layers would be a new module in every call, and compiled in each."""
    for layer in list(net)[:-1]:
        x = layer(x)
    return x


def sinusoid(t: Float[Tensor, " batch"], width: int, shortest: float = 0.1) -> Float[Tensor, "batch width"]:
    """Sine and cosine features of t in [0, 1] with periods from 1000 down to `shortest` (log-spaced)."""
    half = width // 2
    steps = torch.arange(half, device=t.device, dtype=t.dtype) / max(half - 1, 1)
    frequency = torch.exp(math.log(2 * math.pi / 1000.0) + steps * math.log(1000.0 / shortest))
    angle = t[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


class TimeEmbedding(nn.Module):
    """Sinusoid followed by a small network, [B] -> [B, width]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.net = mlp(2 * (width // 2), [2 * width], width)

    def forward(self, t: Float[Tensor, " batch"]) -> Float[Tensor, "batch width"]:
        """Embed the time."""
        return self.net(sinusoid(t, self.width))
