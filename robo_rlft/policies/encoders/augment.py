"""Random shifts of images, the augmentation of DrQ (Kostrikov, Yarats & Fergus 2020)."""

from __future__ import annotations

import torch
from jaxtyping import UInt8
from torch import Tensor


def random_shift(
    images: UInt8[Tensor, "batch horizon height width rgb"], pad: int, generator: torch.Generator | None = None
) -> UInt8[Tensor, "batch horizon height width rgb"]:
    """Shift each row by whole pixels, -pad .. pad along both axes; its own border fills what comes free.

    The images of one row, consecutive ones of one camera, move together.

    Args:
        images: uint8 or any other type, which stays.
        pad: largest shift in pixels (DrQ: 4 of 84); 0 shifts nothing.
        generator: source of the shifts, on the images' device.
    """
    if pad == 0:
        return images
    n, _, height, width, _ = images.shape
    shift = torch.randint(-pad, pad + 1, (2, n, 1), generator=generator, device=images.device)
    rows = (torch.arange(height, device=images.device) + shift[0]).clamp(0, height - 1)
    columns = (torch.arange(width, device=images.device) + shift[1]).clamp(0, width - 1)
    every = torch.arange(n, device=images.device)[:, None, None]
    # The slice between index arrays puts the time axis behind them: [N, height, width, horizon, 3].
    return images[every, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2, 4)
