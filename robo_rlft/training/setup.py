"""Things every verb sets up the same way: threads, precision, seeds, environments."""

from __future__ import annotations

import os
import random
from typing import Any

import numpy as np
import torch

from robo_rlft.envs import make
from robo_rlft.envs.base import BatchEnv
from robo_rlft.errors import ConfigError
from robo_rlft.training.config import Config
from robo_rlft.training.precision import choose_matmul_precision


def prepare(config: Config) -> torch.device:
    """Set torch's threads, matmul precision and the global seeds; return the device.

    Raises:
        ConfigError: a device this machine does not have.
    """
    torch.set_num_threads(config.threads or len(os.sched_getaffinity(0)))
    device = torch.device(config.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device={config.device}: this torch sees no GPU; use device=cpu or run robo-rlft doctor")
    torch.set_float32_matmul_precision(choose_matmul_precision(config.matmul, device))
    random.seed(config.seed)
    np.random.seed(config.seed % 2**32)
    torch.manual_seed(config.seed)
    return device


def make_env(config: Config, num_envs: int, **params: Any) -> BatchEnv:
    """The configured environment, `num_envs` copies on the run's device.

    Args:
        config: `env` says which, with which parameters.
        num_envs: copies.
        params: task parameters over the configured ones.
    """
    env, merged = config.env, config.env.params | params
    return make(
        env.id,
        num_envs,
        device=config.device,
        threads=env.threads,
        images=env.images,
        randomise=env.randomise,
        **merged,
    )
