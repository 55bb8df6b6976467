"""Bundles of small policies for the simulated robots, made without training."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robo_rlft.envs.registry import make
from robo_rlft.export.bundle import write_bundle
from robo_rlft.policies import ChainConfig, NetworkConfig, Policy, PolicyConfig


def write_robot_bundle(folder: Path, env_id: str, **config: Any) -> Path:
    """The bundle of a policy with random weights for an environment."""
    env = make(env_id, num_envs=1, threads=1)
    robot = env.robot
    env.close()
    settings = {"chunk": 1, "execute": 1, "chain": ChainConfig(name="gaussian", steps=1), **config}
    torch.manual_seed(0)
    policy = Policy(PolicyConfig(network=NetworkConfig(name="mlp", hidden=[16]), **settings), robot)
    width, actions = robot.observation["policy"].shape[0], robot.action.shape[0]
    rows = {"policy": np.ones(width) * 3, "action": np.ones(actions)}
    policy.fit_normaliser({key: {"min": -value, "max": value} for key, value in rows.items()})
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return write_bundle(policy.eval(), folder, source={"run": "random"})


@pytest.fixture(scope="session")
def quadruped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_robot_bundle(tmp_path_factory.mktemp("robots") / "quadruped", "QuadrupedFlat")


@pytest.fixture(scope="session")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A flow policy with chunks and a history."""
    config = {"chunk": 4, "execute": 2, "obs_horizon": 2, "chain": ChainConfig(name="reinflow", steps=2)}
    return write_robot_bundle(tmp_path_factory.mktemp("robots") / "arm", "ArmPegInsert", **config)


@pytest.fixture
def domain_id(monkeypatch: pytest.MonkeyPatch) -> int:
    """A ROS domain of this test process's own, on this machine only."""
    number = 1 + os.getpid() % 100
    monkeypatch.setenv("ROS_DOMAIN_ID", str(number))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    return number
