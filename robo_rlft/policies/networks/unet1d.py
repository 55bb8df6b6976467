"""The 1-D U-Net over the chunk of diffusion policy (Chi et al. 2023), with FiLM conditioning."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from robo_rlft.policies.condition import Cond
from robo_rlft.policies.config import NetworkConfig
from robo_rlft.policies.networks.layers import TimeEmbedding


class FilmBlock(nn.Module):
    """Two convolutions with group norm; scale and shift between them come from the condition."""

    def __init__(self, width_in: int, width_out: int, cond_width: int, kernel: int) -> None:
        super().__init__()
        self.first = _conv(width_in, width_out, kernel)
        self.second = _conv(width_out, width_out, kernel)
        self.film = nn.Linear(cond_width, 2 * width_out)
        self.skip = nn.Conv1d(width_in, width_out, 1) if width_in != width_out else nn.Identity()

    def forward(
        self, x: Float[Tensor, "batch channel chunk"], cond: Float[Tensor, "batch feature"]
    ) -> Float[Tensor, "batch out chunk"]:
        """Convolve, modulate, convolve, add."""
        scale, shift = self.film(cond).unsqueeze(-1).chunk(2, dim=1)
        return self.second(self.first(x) * (1 + scale) + shift) + self.skip(x)


class UNet1dVelocity(nn.Module):
    """Velocity of a chunk by convolutions along it.

    Args:
        config: `width` channels at the first of `depth` levels, doubled at each further one; `kernel`.
        event: (chunk length H, action width A). H must be at least 2 ** (depth - 1).
        cond_width: width of the condition.
    """

    def __init__(self, config: NetworkConfig, event: tuple[int, int], cond_width: int) -> None:
        super().__init__()
        widths = [config.width * 2**i for i in range(config.depth)]
        feature = config.time_dim + cond_width
        self.time = TimeEmbedding(config.time_dim)
        self.head = nn.Conv1d(event[1], widths[0], 1)
        self.down = nn.ModuleList(FilmBlock(a, b, feature, config.kernel) for a, b in pairwise([widths[0], *widths]))
        self.middle = FilmBlock(widths[-1], widths[-1], feature, config.kernel)
        ups = [*reversed(widths), widths[0]]
        self.up = nn.ModuleList(FilmBlock(2 * a, b, feature, config.kernel) for a, b in pairwise(ups))
        self.tail = nn.Conv1d(widths[0], event[1], 1)

    def forward(
        self, x: Float[Tensor, "batch chunk action"], t: Float[Tensor, " batch"], cond: Cond
    ) -> Float[Tensor, "batch chunk action"]:
        """Velocity at (x, t)."""
        feature = torch.cat([self.time(t), cond.vector], dim=-1)
        h = self.head(x.transpose(1, 2))
        skips: list[Tensor] = []
        for i, block in enumerate(self.down):
            h = block(h if i == 0 else functional.avg_pool1d(h, 2, ceil_mode=True), feature)
            skips.append(h)
        h = self.middle(h, feature)
        for block in self.up:
            skip = skips.pop()
            if h.shape[-1] != skip.shape[-1]:
                h = h.repeat_interleave(2, dim=-1)[..., : skip.shape[-1]]
            h = block(torch.cat([h, skip], dim=1), feature)
        return self.tail(h).transpose(1, 2)


def _conv(width_in: int, width_out: int, kernel: int) -> nn.Sequential:
    groups = max(g for g in (8, 4, 2, 1) if width_out % g == 0)
    return nn.Sequential(
        nn.Conv1d(width_in, width_out, kernel, padding=kernel // 2), nn.GroupNorm(groups, width_out), nn.SiLU()
    )
