"""Batched simulators. Knows no policy.

The names below are imported when they are used: the settings of images are read where torch is not needed (help, errors
in a command line), and importing torch takes seconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robo_rlft.envs.base import BatchEnv, ChunkResult, EnvState, Obs
    from robo_rlft.envs.registry import Family, entries, families, find, make, register

__all__ = ["BatchEnv", "ChunkResult", "EnvState", "Family", "Obs", "entries", "families", "find", "make", "register"]

_REGISTRY = ("Family", "entries", "families", "find", "make", "register")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{'registry' if name in _REGISTRY else 'base'}"), name)
