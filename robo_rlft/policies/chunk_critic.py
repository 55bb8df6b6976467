"""The value of a chunk, Q(o, a): expected discounted return after executing it here and following the policy then."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from robo_rlft.errors import ConfigError, unknown_name
from robo_rlft.policies.condition import Cond
from robo_rlft.policies.networks import mlp
from robo_rlft.policies.normaliser import Affine

AGGREGATES = ("mean", "min")
"""What an ensemble may say: its mean, or, distrustful, its least."""


class ChunkCritic(nn.Module):
    """An ensemble of MLPs with LayerNorm on what the policy sees and the actions that will be executed.

    It reads the policy's condition (observations with history, normalised) and normalised actions, so that it can be
    asked wherever the policy acts.

    Args:
        cond_width: width of the policy's condition.
        event: (executed actions of a chunk, action width).
        hidden: layers.
        members: MLPs.
        aggregate: one of `AGGREGATES`.

    Attributes:
        scale: offset and scale of the returns; members answer in units of it.
    """

    def __init__(
        self, cond_width: int, event: tuple[int, int], hidden: Sequence[int], members: int = 2, aggregate: str = "mean"
    ) -> None:
        super().__init__()
        if aggregate not in AGGREGATES:
            raise ConfigError(unknown_name("critic.aggregate", aggregate, AGGREGATES))
        self.event, self.aggregate = event, aggregate
        self.scale = Affine(1)
        inputs = cond_width + event[0] * event[1]
        self.nets = nn.ModuleList(mlp(inputs, hidden, 1, last_scale=0.01, norm=True) for _ in range(members))

    def members(self, cond: Cond, action: Float[Tensor, "batch chunk action"]) -> Float[Tensor, "member batch"]:
        """Every member's value in units of `scale`.

        Args:
            cond: what the policy sees.
            action: normalised chunks; their executed part counts, within [-1, 1].
        """
        x = torch.cat([cond.vector, action[:, : self.event[0]].clamp(-1, 1).flatten(1)], dim=-1)
        return torch.stack([net(x).squeeze(-1) for net in self.nets])

    def forward(self, cond: Cond, action: Float[Tensor, "batch chunk action"]) -> Float[Tensor, " batch"]:
        """The value of each chunk, in returns."""
        values = self.members(cond, action)
        value = values.mean(0) if self.aggregate == "mean" else values.amin(0)
        return self.scale.inverse(value[:, None]).squeeze(-1)
