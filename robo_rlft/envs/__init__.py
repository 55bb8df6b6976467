"""Batched simulators. Knows no policy."""

from robo_rlft.envs.base import BatchEnv, ChunkResult, EnvState, Obs
from robo_rlft.envs.registry import entries, make, register

__all__ = ["BatchEnv", "ChunkResult", "EnvState", "Obs", "entries", "make", "register"]
