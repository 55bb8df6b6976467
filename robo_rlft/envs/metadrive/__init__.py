"""MetaDrive: driving in generated and recorded traffic, one engine per process, nothing downloaded.

Importing this package imports no MetaDrive; worker processes do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from robo_rlft.envs.base import BatchEnv
from robo_rlft.envs.images import ImagesConfig
from robo_rlft.envs.metadrive.observations import image_specs
from robo_rlft.envs.metadrive.tasks import TASKS, find
from robo_rlft.errors import ConfigError


def tasks() -> Sequence[str]:
    """Names of the tasks."""
    return tuple(TASKS)


def make_env(
    task: str,
    num_envs: int,
    *,
    seed: int | None = None,
    device: str | torch.device = "cpu",
    threads: int = 0,
    dtype: torch.dtype = torch.float32,
    images: ImagesConfig | None = None,
    **params: Any,
) -> BatchEnv:
    """N cars of one task, each in a world and a process of its own; multi-agent worlds have one car per row.

    Args:
        task: a name of `tasks()`.
        num_envs: rows, N.
        seed, device, threads, dtype: see `envs.make`; every world has a process whatever `threads` is.
        images: top-down images to observe.
        params: see `tasks.TASKS`.

    Raises:
        ConfigError: an unknown task, parameter or camera, a parameter's value, or rows that fill no worlds.
    """
    from robo_rlft.envs.metadrive.pooled import pool_of_cars, worlds_of_agents

    found = find(task)
    settled = found.settled(params)
    images = images or ImagesConfig()
    image_specs(images.cameras, images.size)
    common = {"seed": seed, "device": device, "threads": threads, "dtype": dtype}
    if not found.agents:
        return pool_of_cars(found, settled, num_envs, images, **common)
    if images.cameras:
        raise ConfigError(f"environment metadrive:{task} gives no images: leave env.images.cameras empty")
    return worlds_of_agents(found, settled, num_envs, **common)
