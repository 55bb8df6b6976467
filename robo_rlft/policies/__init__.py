"""Policies: networks make velocities, chains make actions."""

from robo_rlft.policies.condition import Cond
from robo_rlft.policies.config import ChainConfig, NetworkConfig, PolicyConfig
from robo_rlft.policies.critic import Critic
from robo_rlft.policies.policy import Policy

__all__ = ["ChainConfig", "Cond", "Critic", "NetworkConfig", "Policy", "PolicyConfig"]
