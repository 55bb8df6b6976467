"""FPO (McAllister et al. 2025): the flow's own loss stands for the likelihood that a deterministic flow does not have.

    log-ratio = mean over pairs (eps_s, t_s) of   loss_old(eps_s, t_s) - loss_new(eps_s, t_s)
    loss(eps, t) = || v((1 - t) eps + t a, t) - (a - eps) ||^2,   a the action that was sampled

Exploration is the starting noise. The pairs are drawn with the action and kept, so that both sides see the same.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from robo_rlft.policies.chains.base import Path, PathScore, uniform
from robo_rlft.policies.chains.euler import Euler
from robo_rlft.policies.condition import Cond
from robo_rlft.policies.config import ChainConfig
from robo_rlft.policies.precision import computing_in


class FPO(Euler):
    """Euler's method as the sampler, minus the cloning loss of the action as the score.

    Its path holds eps_1 .. eps_S, the noise that gives the times, and the action; only the last is scored. There is
    one time in each of S equal parts of [0, 1].
    """

    has_likelihood = True
    scores_start = False

    def __init__(self, config: ChainConfig, event: tuple[int, int], cond_width: int, feature_width: int = 0) -> None:
        super().__init__(config, event, cond_width, feature_width)
        self.pairs = config.fpo_pairs
        self.window = 1
        self.scored_steps = self.pairs
        self.extra_noise = self.pairs + 1 - self.steps

    def sample(
        self,
        network: nn.Module,
        cond: Cond,
        noise: Float[Tensor, "point env chunk action"],
        deterministic: bool = False,
    ) -> Path:
        """The flow from noise[0]; the rest of the noise makes the pairs."""
        flow = super().sample(network, cond, noise[:1], deterministic=True)
        if deterministic:
            return flow
        latents = torch.cat([noise[1:], flow.latents[-1:]])
        scored = torch.zeros(latents.shape[:2], dtype=torch.bool, device=noise.device)
        scored[-1] = True
        return Path(latents, scored, flow.action)

    def score(self, network: nn.Module, cond: Cond, path: Path, fold_rows: int = 0) -> PathScore:
        """Minus the mean loss of the pairs, per entry of the action."""
        self.check_scored(path)
        del fold_rows
        *eps, time, action = path.latents
        rows = len(action)
        offsets = torch.arange(self.pairs, device=time.device, dtype=time.dtype)
        t = ((offsets[:, None] + uniform(time)) / self.pairs).flatten()
        with computing_in(self.config.precision, action.device):
            error = self.cloning_error(
                network, cond.repeat(self.pairs), action.repeat(self.pairs, 1, 1), torch.cat(eps), t, t
            )
        loss = error.to(action.dtype).square().view(self.pairs, rows, *self.event).mean(0)
        nothing = torch.zeros_like(path.latents[:-1])
        return PathScore(torch.cat([nothing, -loss[None]]), torch.zeros_like(path.latents))
