"""A small residual network with group norm, trained from scratch (He et al. 2016; Wu & He 2018)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from robo_rlft.policies.config import EncoderConfig


class Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut; the first one strides."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False),
            _norm(channels_out),
            nn.ReLU(),
            nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
            _norm(channels_out),
        )
        same = channels_in == channels_out and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch channel2 h w"]:
        """One block."""
        return (self.body(x) + self.shortcut(x)).relu()


def trunk(config: EncoderConfig, size: tuple[int, int]) -> nn.Module:
    """A 5 x 5 stem, then `depth` blocks of width, 2 width, 4 width ...; each of them halves the map."""
    del size
    stem = (nn.Conv2d(3, config.width, 5, 2, padding=2, bias=False), _norm(config.width), nn.ReLU())
    widths = [config.width * 2**level for level in range(config.depth)]
    return nn.Sequential(*stem, *(Block(a, b, 2) for a, b in zip([config.width, *widths], widths, strict=False)))


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(max(1, channels // 16), channels)
