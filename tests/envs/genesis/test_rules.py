"""The rules of every environment, on Genesis."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import pytest

from robo_rlft import envs
from robo_rlft.envs import conformance
from robo_rlft.envs.randomise import NoiseConfig, RandomiseConfig

pytestmark = pytest.mark.skipif(importlib.util.find_spec("genesis") is None, reason="extra genesis")

EVERYTHING = RandomiseConfig(
    mass=[0.8, 1.2],
    friction=[0.6, 1.2],
    gains=[0.9, 1.1],
    latency_s=[0.0, 0.04],
    push_velocity=0.5,
    push_interval_s=0.2,
    noise=NoiseConfig(rad=0.01, rad_s=0.1, unitless=0.02),
)
LENT = tuple(rule for rule in conformance.RULES if rule.__name__ != "closes")


@pytest.mark.parametrize("rule", LENT, ids=lambda rule: rule.__name__)
def test_panda_lift(rule: conformance.Rule, lend: Callable[..., Any]) -> None:
    conformance.follow(rule, lambda num_envs: lend("PandaLift", num_envs))


@pytest.mark.parametrize("rule", LENT, ids=lambda rule: rule.__name__)
def test_go2_flat_randomised(rule: conformance.Rule, lend: Callable[..., Any]) -> None:
    conformance.follow(rule, lambda num_envs: lend("Go2Flat", num_envs, randomise=EVERYTHING))


def test_closes() -> None:
    rule = next(rule for rule in conformance.RULES if rule.__name__ == "closes")
    conformance.follow(rule, lambda num_envs: envs.make("genesis:PandaReach", num_envs))


@pytest.mark.slow
@pytest.mark.parametrize("rule", LENT, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("task", ["PandaReach", "Go2Flat", "Go2Rough"])
def test_the_others(task: str, rule: conformance.Rule, lend: Callable[..., Any]) -> None:
    conformance.follow(rule, lambda num_envs: lend(task, num_envs))
