from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from robo_rlft.export.bundle import write_bundle
from robo_rlft.export.manifest import read_manifest, sha256, to_yaml
from robo_rlft.policies import ChainConfig, NetworkConfig, Policy, PolicyConfig
from robo_rlft.policies.residual import ResidualPolicy, residual_robot
from robo_rlft.spec import ArraySpec, RobotSpec
from robo_rlft.training.config import ResidualConfig

ROBOT = RobotSpec(
    env_id="Toy",
    observation={
        "policy": ArraySpec((3,), names=("x", "y", "angle"), units=("m", "m", "rad")),
        "critic": ArraySpec((5,)),
    },
    action=ArraySpec((2,), names=("left", "right"), units=("N", "N"), low=(-10.0, -1.5), high=(10.0, 1.5)),
    rate_hz=50.0,
    max_episode_steps=100,
    task={"clearance": 0.001, "start": [0.0, 1.0]},
)
STATISTICS = {
    "policy": {"min": np.array([-1.0, 0.0, -3.0]), "max": np.array([1.0, 4.0, 3.0])},
    "action": {"min": np.array([-8.0, -2.0]), "max": np.array([8.0, 2.0])},
}


def make_policy(network: str = "mlp", chain: str = "reinflow", steps: int = 2, obs_horizon: int = 2) -> Policy:
    """A small policy whose every weight matters: fresh networks start with zeros that would hide mistakes."""
    config = PolicyConfig(
        network=NetworkConfig(
            name=network, hidden=[16, 16], width=16, depth=1 if network == "transformer" else 2, heads=2
        ),
        chain=ChainConfig(name=chain, steps=steps, noise_hidden=[8]),
        obs_horizon=obs_horizon,
        chunk=4,
        execute=3,
    )
    torch.manual_seed(3)
    policy = Policy(config, ROBOT)
    policy.fit_normaliser(STATISTICS)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return policy.eval()


def make_residual() -> ResidualPolicy:
    """A residual of which every weight matters, on a base with two observations of history."""
    base = make_policy()
    config = ResidualConfig(network=NetworkConfig(hidden=[16])).policy
    policy = ResidualPolicy(config, base, residual_robot(ROBOT, base), 0.3)
    with torch.no_grad():
        for parameter in policy.network.parameters():
            parameter.copy_(0.5 * torch.randn_like(parameter))
    return policy.eval()


def reseal(bundle: Path, name: str, data: bytes) -> None:
    """Replace a file and make the manifest agree with it, as somebody would who knows the format."""
    manifest = read_manifest(bundle)
    (bundle / name).write_bytes(data)
    files = {**manifest.files, name: sha256(data)}
    (bundle / "controller.yaml").write_bytes(to_yaml(replace(manifest, files=files)))


@pytest.fixture(scope="session")
def policy() -> Policy:
    return make_policy()


@pytest.fixture(scope="session")
def exported(policy: Policy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One bundle for all tests that only read it."""
    return write_bundle(policy, tmp_path_factory.mktemp("bundles") / "toy", source={"run": "toy"})


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Path:
    """A copy a test may damage."""
    return Path(shutil.copytree(exported, tmp_path / "toy"))


@pytest.fixture
def inputs() -> Callable[[int], tuple[dict[str, np.ndarray], np.ndarray]]:
    """(rows) -> observation and noise for `make_policy`."""

    def draw(rows: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        rng = np.random.default_rng(rows)
        observation = {"policy": rng.normal(0, 2, (rows, 2, 3)).astype(np.float32)}
        return observation, rng.standard_normal((rows, 4, 2), dtype=np.float32)

    return draw
