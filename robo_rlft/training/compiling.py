"""`compile=true`: the networks of a fine-tuning run through torch.compile, in rollout and update alike."""

from __future__ import annotations

import os
import shutil

import torch

from robo_rlft.errors import ConfigError
from robo_rlft.policies import Critic, Policy
from robo_rlft.policies.chains.flow_noise import HasFeatures


def compile_networks(policy: Policy, critic: Critic, device: torch.device) -> None:
    """Compile velocity, noise and value networks where they are: parameters, their names and checkpoints stay.

    Both sides of the likelihood ratio call the same modules, so that it starts at 1 to rounding as before.

    Args:
        policy: its network and the networks of its chain.
        critic: the value function.
        device: a CPU needs a C++ compiler.

    Raises:
        ConfigError: there is none.
    """
    _check_compiler(device)
    network = policy.network
    if isinstance(network, HasFeatures):
        network.velocity_and_features = torch.compile(network.velocity_and_features)
    for module in (network, *policy.chain.children(), critic):
        module.compile()


def _check_compiler(device: torch.device) -> None:
    named = os.environ.get("CXX")
    if device.type == "cpu" and not any(map(shutil.which, (named,) if named else ("g++", "clang++"))):
        raise ConfigError(
            f"compile=true needs a C++ compiler on a CPU and found no {named or 'g++ or clang++'}: install one, "
            "or use compile=false"
        )
