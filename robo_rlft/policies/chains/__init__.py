"""Action chains by name."""

from __future__ import annotations

from robo_rlft.errors import ConfigError, unknown_name
from robo_rlft.policies.chains.base import Chain, Normal, Path, PathScore
from robo_rlft.policies.chains.ddim import DDIM
from robo_rlft.policies.chains.ddpm import DDPM
from robo_rlft.policies.chains.dsrl import DSRL
from robo_rlft.policies.chains.euler import Euler
from robo_rlft.policies.chains.flow_noise import FlowNoise
from robo_rlft.policies.chains.flow_sde import FlowSDE
from robo_rlft.policies.chains.fpo import FPO
from robo_rlft.policies.chains.gaussian import Gaussian
from robo_rlft.policies.chains.mean_flow import MeanFlow
from robo_rlft.policies.chains.reinflow import ReinFlow
from robo_rlft.policies.chains.shortcut import Shortcut
from robo_rlft.policies.config import ChainConfig

CHAINS: dict[str, type[Chain]] = {
    "euler": Euler,
    "reinflow": ReinFlow,
    "flow_sde": FlowSDE,
    "flow_noise": FlowNoise,
    "fpo": FPO,
    "dsrl": DSRL,
    "shortcut": Shortcut,
    "mean_flow": MeanFlow,
    "ddpm": DDPM,
    "ddim": DDIM,
    "gaussian": Gaussian,
}


def chain_type(config: ChainConfig) -> type[Chain]:
    """The class of a chain.

    Raises:
        ConfigError: an unknown name.
    """
    if config.name not in CHAINS:
        raise ConfigError(unknown_name("chain", config.name, CHAINS))
    return CHAINS[config.name]


def build_chain(config: ChainConfig, event: tuple[int, int], cond_width: int, feature_width: int = 0) -> Chain:
    """The chain of a policy (see `Chain`).

    Raises:
        ConfigError: an unknown name or contradicting settings.
    """
    return chain_type(config)(config, event, cond_width, feature_width)


__all__ = ["CHAINS", "Chain", "Normal", "Path", "PathScore", "build_chain", "chain_type"]
