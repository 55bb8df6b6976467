"""The value function: an MLP on the privileged observation group if there is one, else on the policy's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor, nn

from robo_rlft.policies.networks import mlp
from robo_rlft.policies.networks.layers import hidden
from robo_rlft.policies.normaliser import Affine
from robo_rlft.policies.precision import computing_in
from robo_rlft.spec import CRITIC_KEY, POLICY_KEY, RobotSpec


class Critic(nn.Module):
    """State value of the newest observation.

    Args:
        robot: widths.
        hidden: layers.
        clip: bound of normalised observations.
        precision: what the hidden layers are computed in; the last one always takes the parameters' own precision.
    """

    def __init__(self, robot: RobotSpec, hidden: Sequence[int], clip: float = 5.0, precision: str = "float32") -> None:
        super().__init__()
        self.precision = precision
        self.key = CRITIC_KEY if CRITIC_KEY in robot.observation else POLICY_KEY
        width = robot.observation[self.key].shape[0]
        self.norm = Affine(width, clip)
        self.net = mlp(width, hidden, 1)

    def forward(self, obs: Mapping[str, Tensor]) -> Float[Tensor, " env"]:
        """Value of observations without history, [N, width] per key."""
        x = self.norm(obs[self.key])
        with computing_in(self.precision, x.device):
            features = hidden(self.net, x)
        return self.net[-1](features.to(x.dtype)).squeeze(-1)
