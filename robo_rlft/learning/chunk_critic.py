"""The value of chunks under a frozen policy, from its own episodes (lambda-returns, Sutton & Barto 2018, chapter 12).

    G_t = R_t + gamma^h ( lambda G_{t+1} + (1 - lambda) Q(s_{t+1}, a_{t+1}) ),      L = E || Q_i(s, a) - G ||^2

R is the discounted reward within the chunk, h the control steps executed. Where an episode terminated nothing follows;
where the clock cut it, and at the end of what was collected, Q(s', a') of the true last observation and an action the
policy would have taken stands for the rest. lambda = 1 is the Monte-Carlo return of everything in between. The policy
does not change, so experience never grows old, and targets are made anew before each round of updates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from robo_rlft.learning.common.gae import gae
from robo_rlft.policies.chunk_critic import ChunkCritic
from robo_rlft.policies.condition import Cond


@dataclass(frozen=True)
class Experience:
    """T chunks of N environments in the order they were executed.

    Attributes:
        cond: what the policy saw, encoded.
        action: the executed part of the chunk, normalised.
        next_cond: what it would have seen after the chunk, before any reset.
        next_action: what it would have done there.
        reward: discounted reward within each chunk.
        executed: control steps executed.
        terminated: ended by the task.
        truncated: ended by the time limit.
    """

    cond: Float[Tensor, "time env feature"]
    action: Float[Tensor, "time env chunk action"]
    next_cond: Float[Tensor, "time env feature"]
    next_action: Float[Tensor, "time env chunk action"]
    reward: Float[Tensor, "time env"]
    executed: Int[Tensor, "time env"]
    terminated: Bool[Tensor, "time env"]
    truncated: Bool[Tensor, "time env"]

    @classmethod
    def joined(cls, parts: Sequence[Experience]) -> Experience:
        """Parts that follow one another in time."""
        return cls(**{f.name: torch.cat([getattr(p, f.name) for p in parts]) for f in fields(cls)})


def returns(
    value: Float[Tensor, "time env"],
    next_value: Float[Tensor, "time env"],
    experience: Experience,
    gamma: float,
    lam: float,
) -> Float[Tensor, "time env"]:
    """G of every chunk.

    Args:
        value: Q(s_t, a_t) of the chunks that were executed.
        next_value: Q of the observation after each chunk, before any reset, and the policy's action there. It counts
            where an episode was cut and after the last chunk; elsewhere the next chunk's own value does.
        experience: the chunks.
        gamma: discount per control step.
        lam: lambda per chunk.
    """
    done = experience.terminated | experience.truncated
    follows = torch.where(done, next_value, torch.cat([value[1:], next_value[-1:]]))
    return gae(
        experience.reward, value, follows, experience.executed, experience.terminated, experience.truncated, gamma, lam
    )[1]


@torch.no_grad()
def targets(critic: ChunkCritic, experience: Experience, gamma: float, lam: float) -> Float[Tensor, "time env"]:
    """G of every chunk, with the critic as it is now."""
    value = values(critic, experience.cond, experience.action)
    return returns(value, values(critic, experience.next_cond, experience.next_action), experience, gamma, lam)


def values(
    critic: ChunkCritic, cond: Float[Tensor, "time env feature"], action: Float[Tensor, "time env chunk action"]
) -> Float[Tensor, "time env"]:
    """Q of chunks."""
    return critic(Cond(cond.flatten(0, 1)), action.flatten(0, 1)).view(cond.shape[:2])


def critic_loss(
    critic: ChunkCritic, cond: Cond, action: Float[Tensor, "batch chunk action"], target: Float[Tensor, " batch"]
) -> Float[Tensor, ""]:
    """Mean squared error of every member, in units of the critic's scale."""
    return (critic.members(cond, action) - critic.scale(target[:, None]).squeeze(-1)).square().mean()


def explained_variance(value: Float[Tensor, " row"], target: Float[Tensor, " row"]) -> float:
    """1 - var(target - value) / var(target)."""
    return float(1 - (target - value).var() / target.var().clamp(min=1e-12))


def ranking_accuracy(value: Float[Tensor, " row"], target: Float[Tensor, " row"]) -> float:
    """Share of the pairs of different targets whose values are ordered alike; equal values count half."""
    gap = target[:, None] - target
    agree = (value[:, None] - value).sign() * gap.sign()
    return float((agree[gap != 0] + 1).mean() / 2)
