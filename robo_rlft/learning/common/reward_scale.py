"""Reward scaling by the running standard deviation of the discounted return (Engstrom et al. 2020)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class RewardScale:
    """Divides rewards by the standard deviation of the discounted return seen so far. Rewards are not shifted.

    Args:
        num_envs: environments.
        gamma: discount per control step.
    """

    def __init__(self, num_envs: int, gamma: float) -> None:
        self.gamma = gamma
        self.running = torch.zeros(num_envs, dtype=torch.float64)
        self.count = torch.zeros((), dtype=torch.float64)
        self.mean = torch.zeros((), dtype=torch.float64)
        self.m2 = torch.zeros((), dtype=torch.float64)

    def update(self, reward: Float[Tensor, " env"], length: Int[Tensor, " env"], done: Bool[Tensor, " env"]) -> None:
        """Take one chunk per environment into account.

        Args:
            reward: discounted reward of the chunk.
            length: control steps executed.
            done: the episode ended.
        """
        self.running = self.running * self.gamma ** length.double().cpu() + reward.double().cpu()
        batch = len(self.running)
        mean, var = self.running.mean(), self.running.var(unbiased=False)
        total = self.count + batch
        delta = mean - self.mean
        self.m2 = self.m2 + var * batch + delta**2 * self.count * batch / total
        self.mean = self.mean + delta * batch / total
        self.count = total
        self.running[done.cpu()] = 0

    @property
    def divisor(self) -> float:
        """Standard deviation of the discounted return, never below 1e-3."""
        if self.count < 2:
            return 1.0
        return max(float((self.m2 / self.count).sqrt()), 1e-3)

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors to save."""
        return {k: getattr(self, k).clone() for k in ("running", "count", "mean", "m2")}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Inverse of `state_dict`."""
        for key, value in state.items():
            setattr(self, key, value.clone())
