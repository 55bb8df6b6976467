"""Policies: networks make velocities, chains make actions.

The names below are imported when they are used: the settings of policies are read where torch is not needed (help,
errors in a command line), and importing torch takes seconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robo_rlft.policies.condition import Cond
    from robo_rlft.policies.config import ChainConfig, NetworkConfig, PolicyConfig
    from robo_rlft.policies.critic import Critic
    from robo_rlft.policies.policy import Policy

__all__ = ["ChainConfig", "Cond", "Critic", "NetworkConfig", "Policy", "PolicyConfig"]

_HOMES = {"Cond": "condition", "Critic": "critic", "Policy": "policy"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'config')}"), name)
