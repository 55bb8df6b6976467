"""Every environment of this installation follows the rules of `BatchEnv`."""

from __future__ import annotations

import pytest
import torch

from robo_rlft import envs
from robo_rlft.envs import conformance
from robo_rlft.envs.conformance import ConformanceError, rules

IDS = ["Hopper", "Walker2d", "HalfCheetah", "Ant", "Humanoid", "ArmPickPlace", "ArmPegInsert"]


@pytest.mark.parametrize("rule", conformance.RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("env_id", IDS)
def test_follows(env_id: str, rule: conformance.Rule) -> None:
    conformance.follow(rule, lambda num_envs: envs.make(env_id, num_envs, threads=2))


class _Overwriting:
    """A wrapper that returns one observation tensor over and over, as careless engines do."""

    def __init__(self, num_envs: int) -> None:
        self.env = envs.make("Hopper", num_envs)
        self.buffer = torch.zeros(num_envs, 11)

    def step(self, actions: torch.Tensor) -> tuple:
        obs, *rest = self.env.step(actions)
        self.buffer[:] = obs["policy"]
        return {"policy": self.buffer}, *rest

    def __getattr__(self, name: str) -> object:
        return getattr(self.env, name)


def test_catches_overwritten_tensors() -> None:
    with pytest.raises(ConformanceError, match="after later steps"):
        rules.returned_tensors_stay(_Overwriting)  # pyright: ignore[reportArgumentType]


class _Unseeded(_Overwriting):
    def step(self, actions: torch.Tensor) -> tuple:
        return self.env.step(actions)

    def reset(self, *, seed: object = None, options: object = None) -> tuple:
        return self.env.reset()


def test_catches_ignored_seeds() -> None:
    with pytest.raises(ConformanceError, match="one seed"):
        rules.same_seed_same_episode(_Unseeded)  # pyright: ignore[reportArgumentType]
