"""Networks by name."""

from __future__ import annotations

from torch import nn

from robo_rlft.errors import ConfigError, unknown_name
from robo_rlft.policies.config import NetworkConfig
from robo_rlft.policies.networks.mlp import MLPVelocity
from robo_rlft.policies.networks.transformer import TransformerVelocity
from robo_rlft.policies.networks.unet1d import UNet1dVelocity

NETWORKS: dict[str, type[MLPVelocity] | type[UNet1dVelocity] | type[TransformerVelocity]] = {
    "mlp": MLPVelocity,
    "unet1d": UNet1dVelocity,
    "transformer": TransformerVelocity,
}


def build_network(config: NetworkConfig, event: tuple[int, int], cond_width: int) -> nn.Module:
    """The network of a policy.

    Args:
        config: which one and how large.
        event: (chunk length H, action width A).
        cond_width: width of the condition.

    Raises:
        ConfigError: an unknown name, or sizes that do not fit together.
    """
    if config.name not in NETWORKS:
        raise ConfigError(unknown_name("network", config.name, NETWORKS))
    if config.name == "transformer" and config.width % config.heads:
        raise ConfigError(f"policy.network.width {config.width} is no multiple of policy.network.heads {config.heads}")
    shortest = 2 ** (config.depth - 1)
    if config.name == "unet1d" and event[0] < shortest:
        raise ConfigError(
            f"policy.chunk {event[0]} is too short for a U-Net of depth {config.depth}: at least {shortest}"
        )
    return NETWORKS[config.name](config, event, cond_width)
