"""Action chains by name."""

from __future__ import annotations

from robo_rlft.errors import ConfigError, unknown_name
from robo_rlft.policies.chains.base import Chain, Normal, Path, PathScore
from robo_rlft.policies.chains.euler import Euler
from robo_rlft.policies.chains.gaussian import Gaussian
from robo_rlft.policies.chains.reinflow import ReinFlow
from robo_rlft.policies.config import ChainConfig

CHAINS: dict[str, type[Chain]] = {"euler": Euler, "reinflow": ReinFlow, "gaussian": Gaussian}


def build_chain(config: ChainConfig, event: tuple[int, int], cond_width: int) -> Chain:
    """The chain of a policy.

    Raises:
        ConfigError: an unknown name or contradicting settings.
    """
    if config.name not in CHAINS:
        raise ConfigError(unknown_name("chain", config.name, CHAINS))
    return CHAINS[config.name](config, event, cond_width)


__all__ = ["CHAINS", "Chain", "Normal", "Path", "PathScore", "build_chain"]
