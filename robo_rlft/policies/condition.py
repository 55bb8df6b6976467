"""What a policy knows about the present: the output of its encoder."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Cond:
    """The encoded observation, one row per environment.

    Attributes:
        vector: features, [B, C].
    """

    vector: Float[Tensor, "batch feature"]

    def __len__(self) -> int:
        return len(self.vector)

    def __getitem__(self, rows: Tensor | slice) -> Cond:
        return Cond(self.vector[rows])

    def repeat(self, times: int) -> Cond:
        """The rows `times` over, [times * B, C]: row b of copy i stands at i * B + b."""
        return self if times == 1 else Cond(self.vector.repeat(times, 1))

    def detach(self) -> Cond:
        """The same features without their gradient."""
        return Cond(self.vector.detach())
