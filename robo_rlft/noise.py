"""The starting noise of evaluated episodes, the same for a policy in training and for its exported controller.

Both then draw the same x_0 for the same episode and chunk, so that their success rates differ only by what export did.
"""

from __future__ import annotations

import numpy as np


def episode_noise(seed: int, chunk_index: int, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal noise for one chunk of one episode, whichever batch and process asks for it.

    Args:
        seed: the episode's seed, >= 0.
        chunk_index: how many chunks of the episode came before.
        shape: (chunk length H, action width A) for x_0 alone; (points, H, A) begins with the same x_0.

    Returns:
        float32 of that shape.
    """
    generator = np.random.Generator(np.random.PCG64([seed, chunk_index]))
    return generator.standard_normal(shape, dtype=np.float32)
