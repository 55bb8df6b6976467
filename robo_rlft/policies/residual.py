"""A residual policy: small per-step corrections of a frozen policy's chunks (ResiP, Ankile et al. 2024).

    u_t = a_t + scale * r_t,   r_t ~ N( mu(s_t, a_t, phase_t), sigma^2 )

in the normalised units of the frozen base policy's actions: a_t is the next action of its present chunk, s_t its
normalised observation. The base works in chunks, the residual sees and corrects every single control step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from robo_rlft.policies.config import PolicyConfig
from robo_rlft.policies.policy import Policy
from robo_rlft.spec import CRITIC_KEY, POLICY_KEY, ArraySpec, RobotSpec

OBS_BOUND = 3.0
"""Bound of the normalised observations a residual sees (ResiP)."""


class ResidualPolicy(Policy):
    """A policy of corrections together with the frozen policy it corrects, which is part of its weights.

    Args:
        config: the residual's own settings, of single steps: chunk 1.
        base: what it corrects; frozen here.
        robot: what the residual sees and does (`residual_robot`).
        scale: size of the largest correction, in normalised action units.
    """

    def __init__(self, config: PolicyConfig, base: Policy, robot: RobotSpec, scale: float) -> None:
        super().__init__(config, robot)
        self.fit_normaliser({})
        self.base = base.eval().requires_grad_(False)
        self.scale = scale

    def features(
        self, newest: Mapping[str, Tensor], base_action: Float[Tensor, "env action"], phase: Float[Tensor, "env 1"]
    ) -> Float[Tensor, "env feature"]:
        """What the residual sees: the base's normalised observation, its next action, and how far its chunk is.

        Of images it sees what the base makes of them alone.

        Args:
            newest: observations in the robot's units, [N, width] per key of the base.
            base_action: the next action of each chunk, normalised.
            phase: share of each chunk that is used up, [0, 1).
        """
        seen = [self.base.obs_affine(key)(newest[key]).clamp(-OBS_BOUND, OBS_BOUND) for key in self.base.vector_keys]
        return torch.cat([*seen, base_action, phase], dim=-1)

    def corrected(
        self, base_action: Float[Tensor, "env action"], residual: Float[Tensor, "env action"]
    ) -> Float[Tensor, "env action"]:
        """The action in the robot's units."""
        return self.base.to_robot((base_action + self.scale * residual.clamp(-1, 1)).clamp(-1, 1))

    @property
    def network_calls(self) -> dict[str, int]:
        """Of a whole chunk of the base: the base's own, and one of the residual for every step that is played."""
        calls = self.base.network_calls
        return calls | {"velocity": calls["velocity"] + self.base.config.execute}

    def describe(self) -> dict[str, Any]:
        """What a checkpoint needs beside the weights to rebuild this policy."""
        return {"scale": self.scale, "base": {"policy": asdict(self.base.config), "robot": self.base.robot.to_dict()}}


def residual_robot(robot: RobotSpec, base: Policy) -> RobotSpec:
    """The robot as a residual on `base` meets it: `ResidualPolicy.features` in, corrections within [-1, 1] out.

    A privileged group goes on to the value function behind the residual's own observation.
    """
    names = tuple(n for key in base.vector_keys for n in _names(robot.observation[key], key))
    action = _names(robot.action, "action")
    seen = (*names, *(f"base_{name}" for name in action), "phase")
    groups = {POLICY_KEY: ArraySpec((len(seen),), names=seen)}
    if CRITIC_KEY in robot.observation:
        privileged = (*seen, *(f"critic_{n}" for n in _names(robot.observation[CRITIC_KEY], CRITIC_KEY)))
        groups[CRITIC_KEY] = ArraySpec((len(privileged),), names=privileged)
    ones = (1.0,) * len(action)
    return RobotSpec(
        env_id=robot.env_id,
        observation=groups,
        action=ArraySpec((len(action),), names=action, low=tuple(-x for x in ones), high=ones),
        rate_hz=robot.rate_hz,
        max_episode_steps=robot.max_episode_steps,
        task=robot.task,
    )


def _names(spec: ArraySpec, key: str) -> tuple[str, ...]:
    return spec.names or tuple(f"{key}_{i}" for i in range(spec.shape[0]))
