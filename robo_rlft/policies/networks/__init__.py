"""Networks: (noisy chunk, time, condition) to velocity."""

from robo_rlft.policies.networks.build import NETWORKS, build_network
from robo_rlft.policies.networks.layers import mlp

__all__ = ["NETWORKS", "build_network", "mlp"]
