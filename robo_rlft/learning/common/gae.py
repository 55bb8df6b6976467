"""Generalised advantage estimation over chunks, with terminations and truncations kept apart."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def chunk_reward(reward: Float[Tensor, "*batch chunk"], gamma: float) -> Float[Tensor, "*batch"]:
    """Discounted reward within a chunk, sum_i gamma^i r_i. Rewards after the episode's end are 0."""
    discount = gamma ** torch.arange(reward.shape[-1], device=reward.device, dtype=reward.dtype)
    return (reward * discount).sum(-1)


def gae(
    reward: Float[Tensor, "time env"],
    value: Float[Tensor, "time env"],
    next_value: Float[Tensor, "time env"],
    length: Int[Tensor, "time env"],
    terminated: Bool[Tensor, "time env"],
    truncated: Bool[Tensor, "time env"],
    gamma: float,
    lam: float,
) -> tuple[Float[Tensor, "time env"], Float[Tensor, "time env"]]:
    """Advantages and value targets (Schulman et al. 2016, equation 16, with one chunk as the step).

        delta = R + gamma^h (1 - terminated) V(s') - V(s)
        A     = delta + gamma^h lambda (1 - terminated)(1 - truncated) A'

    h is the number of control steps really executed. At a truncation the value of the TRUE final observation is
    bootstrapped; neither kind of end lets the trace pass into the next episode.

    Args:
        reward: discounted reward of each chunk.
        value: value of the observation before the chunk.
        next_value: value of the observation after it, before any reset.
        length: executed control steps.
        terminated: ended by the task.
        truncated: ended by the time limit.
        gamma: discount per control step.
        lam: lambda per chunk.

    Returns:
        advantages and value targets (advantage + value).
    """
    discount = gamma ** length.to(reward.dtype)
    delta = reward + discount * next_value * ~terminated - value
    decay = discount * lam * ~(terminated | truncated)
    advantage = torch.zeros_like(delta)
    carry = torch.zeros_like(delta[0])
    for t in reversed(range(len(delta))):
        carry = delta[t] + decay[t] * carry
        advantage[t] = carry
    return advantage, advantage + value
