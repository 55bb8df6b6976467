"""What every suite's tests ask for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from robo_rlft import envs
from robo_rlft.envs import conformance, experts
from robo_rlft.envs.base import BatchEnv


def follow_all(env_id: str, **params: Any) -> None:
    """Every rule, with all environments in this process."""
    conformance.check(lambda num_envs: envs.make(env_id, num_envs, **{"workers": 0, **params}))


def share_of_expert(env: BatchEnv, episodes: int, variants: Sequence[int] | None = None) -> float:
    """Success rate of the first episodes of the seeds from 0 on."""
    if variants is not None:
        env.set_variants(variants)
    expert = experts.make(env)
    won = torch.zeros(env.num_envs, dtype=torch.bool)
    over = torch.zeros(env.num_envs, dtype=torch.bool)
    obs, _ = env.reset(seed=0)
    expert.reset(None)
    while not bool(over.all()):
        obs, _, terminated, truncated, info = env.step(expert.act(obs))
        won |= info["success"] & ~over
        over |= terminated | truncated | won
    assert env.num_envs == episodes
    return float(won.float().mean())
