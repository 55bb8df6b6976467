"""RLG, reinforcement-learning guidance: how far a fine-tuned flow goes beyond its origin, chosen when it acts.

    v(x, t) = (1 - w) v_ref(x, t) + w v_RL(x, t)

w = 0 is the reference, w = 1 the fine-tuned policy, w > 1 extrapolates. Where both flows end in Gaussians of equal
covariance the result is exactly pi_ref^(1 - w) pi_RL^w, the policy of a KL penalty divided by w; elsewhere nearly. It
costs two network calls a step.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from robo_rlft.errors import ConfigError
from robo_rlft.policies.chains import chain_type
from robo_rlft.policies.chains.base import VELOCITY
from robo_rlft.policies.condition import Cond
from robo_rlft.policies.policy import Policy


class GuidedVelocity(nn.Module):
    """The mixture of two velocities; the condition's last entry is w, so that one model serves every weight."""

    def __init__(self, reference: nn.Module, tuned: nn.Module) -> None:
        super().__init__()
        self.reference, self.tuned = reference, tuned

    def forward(
        self, x: Float[Tensor, "batch chunk action"], t: Float[Tensor, " batch"], cond: Cond
    ) -> Float[Tensor, "batch chunk action"]:
        """(1 - w) v_ref + w v_RL at (x, t)."""
        weight, seen = cond.vector[:, -1:, None], Cond(cond.vector[:, :-1])
        return (1 - weight) * self.reference(x, t, seen) + weight * self.tuned(x, t, seen)


class GuidedPolicy(Policy):
    """Two flow policies as one deterministic policy with a weight.

    Args:
        tuned: the fine-tuned policy.
        reference: the policy it came from.
        weight: w where a call gives none.

    Raises:
        ConfigError: no flows, or policies that do not belong together.
    """

    weight: Tensor

    def __init__(self, tuned: Policy, reference: Policy, weight: float) -> None:
        _check_pair(tuned, reference)
        chain = replace(tuned.config.chain, name="euler")
        super().__init__(replace(tuned.config, chain=chain), tuned.robot)
        for mine, theirs in _shared(self, tuned):
            mine.load_state_dict(theirs.state_dict())
        self.network = GuidedVelocity(copy.deepcopy(reference.network), copy.deepcopy(tuned.network))
        self.register_buffer("weight", torch.tensor(float(weight)))
        self.to(tuned.action_norm.scale.device)

    def encode(self, obs: Mapping[str, Tensor], weight: Float[Tensor, "batch 1"] | None = None) -> Cond:
        """The condition with the weight behind it.

        Args:
            obs: observations with history.
            weight: w of each row; without it `self.weight` for all.
        """
        seen = super().encode(obs).vector
        return Cond(torch.cat([seen, self.weight.expand(seen.shape[0], 1) if weight is None else weight], dim=-1))


def _shared(mine: Policy, theirs: Policy) -> Iterator[tuple[nn.Module, nn.Module]]:
    """The parts both policies have in common."""
    return ((getattr(mine, name), getattr(theirs, name)) for name in _SHARED)


def _check_pair(tuned: Policy, reference: Policy) -> None:
    for chain in (tuned.config.chain, reference.config.chain):
        if (found := chain_type(chain).prediction(chain)) != VELOCITY:
            raise ConfigError(f"guidance mixes velocities of flows, and chain '{chain.name}' predicts {found}")
    for label in ("obs_horizon", "obs_keys", "chunk", "execute"):
        a, b = getattr(tuned.config, label), getattr(reference.config, label)
        if a != b:
            raise ConfigError(f"guidance: policy.{label} is {a} in the fine-tuned policy and {b} in its reference")
    if tuned.chain.steps != reference.chain.steps:
        raise ConfigError(f"guidance: K is {tuned.chain.steps} here and {reference.chain.steps} in the reference")
    left, right = ({k: v for k, v in p.state_dict().items() if k.split(".")[0] in _SHARED} for p in (tuned, reference))
    if any(not torch.equal(value, right[key]) for key, value in left.items()):
        raise ConfigError(
            "guidance: the two policies normalise differently or see images differently, so their velocities do not "
            "add up; the reference must be the policy that fine-tuning began with, its image encoders left alone"
        )


_SHARED = ("obs_norm", "action_norm", "encoders")
