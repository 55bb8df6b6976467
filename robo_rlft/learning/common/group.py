"""Group-relative advantages: futures of one state are compared with each other instead of with a value function."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def group_advantage(
    reward: Float[Tensor, "time env"],
    length: Int[Tensor, "time env"],
    done: Bool[Tensor, "time env"],
    gamma: float,
    group: int,
) -> Float[Tensor, "time env"]:
    """Advantage of every chunk (GRPO, Shao et al. 2024, on returns; each group of rows starts from one state).

        G_n = sum_t gamma^(steps before t) R_t  until the episode ends,     A = (G_n - mean_group G) / std_group G

    All chunks of a row share its advantage. Those after the end of its episode belong to another one and get 0; so do
    groups whose futures are all alike. What lies beyond the round is not counted: choose `ppo.rollout` to cover it.

    Args:
        reward: discounted reward of each chunk.
        length: executed control steps.
        done: the episode ended in this chunk.
        gamma: discount per control step.
        group: rows n * group .. (n + 1) * group - 1 started from one state.
    """
    alive = torch.cat([torch.zeros_like(done[:1]), done[:-1]]).cumsum(0) == 0
    before = torch.cat([torch.zeros_like(length[:1]), length[:-1]]).cumsum(0)
    total = (reward * gamma ** before.to(reward.dtype) * alive).sum(0).view(-1, group)
    spread = total.std(1, keepdim=True)
    relative = torch.where(spread > SMALLEST_SPREAD, (total - total.mean(1, keepdim=True)) / spread, 0.0)
    return relative.flatten() * alive


SMALLEST_SPREAD = 1e-6
"""A group whose returns differ by less tells nothing but rounding."""
