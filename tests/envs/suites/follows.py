"""What every suite's tests ask for."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from robo_rlft import envs
from robo_rlft.envs import conformance, experts
from robo_rlft.envs.base import BatchEnv
from robo_rlft.envs.conformance import rules


def follow_all(env_id: str, **params: Any) -> None:
    """Every rule, with all environments in this process."""
    conformance.check(lambda num_envs: envs.make(env_id, num_envs, **{"workers": 0, **params}))


def follow_some(env_id: str, **params: Any) -> None:
    """The rules that a simulator itself can break, for one whose environments take seconds to build."""
    for rule in (
        rules.describes_itself,
        rules.same_seed_same_episode,
        rules.chunk_equals_steps,
        rules.state_comes_back,
    ):
        conformance.follow(rule, lambda num_envs: envs.make(env_id, num_envs, **{"workers": 0, **params}))


def with_egl(code: str) -> None:
    """Run a script in a process of its own, whose packages all draw with EGL; skips where there is none."""
    environment = {**os.environ, "MUJOCO_GL": "egl", "PYOPENGL_PLATFORM": "egl"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    if any(word in done.stderr for word in ("EGL", "OpenGL", "gladLoadGL")) and done.returncode:
        pytest.skip(f"EGL does not run here: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr


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
