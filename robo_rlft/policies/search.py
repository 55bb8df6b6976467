"""Search: a frozen policy proposes, a critic of chunks chooses, when it acts. Nothing is trained.

SVDD (Li et al. 2024, soft value-based decoding) chooses at every denoising step among M draws of the policy's own
transition:

    x^m ~ p(x_{k+1} | x_k, o),   v^m = Q(o, a_hat(x^m, t_{k+1})),   x_{k+1} = x^m with probability softmax(v / alpha)_m

a_hat is the action that a path at x^m is expected to end in, x + (1 - t) v(x, t) of a flow, and x itself at the end.
alpha -> 0 takes the best one. Best of N (IDQL, Hansen-Estruch et al. 2023) follows N whole deterministic paths from
different noise and executes the one whose action has the largest Q.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Int
from torch import Tensor

from robo_rlft.errors import ConfigError
from robo_rlft.policies.chains import Path, PathScore
from robo_rlft.policies.chains.base import Chunk, uniform
from robo_rlft.policies.chunk_critic import ChunkCritic
from robo_rlft.policies.condition import Cond
from robo_rlft.policies.policy import Policy


class SearchPolicy(Policy, ABC):
    """A policy whose actions a critic chooses: a sampler without a likelihood.

    Args:
        policy: proposes; its parts are used as they are.
        critic: chooses.
        count: candidates.
    """

    def __init__(self, policy: Policy, critic: ChunkCritic, count: int) -> None:
        super().__init__(policy.config, policy.robot)
        self.obs_norm, self.action_norm = policy.obs_norm, policy.action_norm
        self.network, self.chain = policy.network, policy.chain
        self.critic, self.count = critic, count
        self.to(policy.action_norm.scale.device)

    @abstractmethod
    def sample(self, cond: Cond, noise: Float[Tensor, "point env chunk action"], deterministic: bool = False) -> Path:
        """The path that was chosen. All randomness comes with the noise, so `deterministic` changes nothing."""

    @property
    def evaluation_noise(self) -> tuple[int, ...]:
        """All of the noise: an episode meets the same candidates whatever the batch it is in."""
        return (self.noise_points, *self.event)

    def score(self, cond: Cond, path: Path, fold_rows: int = 0) -> PathScore:
        """There is none.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("a search by a critic is a sampler without a likelihood: score its policy's own paths")

    def values(
        self, cond: Cond, actions: Float[Tensor, "candidate env chunk action"]
    ) -> Float[Tensor, "candidate env"]:
        """Q of every candidate of every row."""
        count, rows = actions.shape[:2]
        return self.critic(cond.repeat(count), actions.flatten(0, 1)).view(count, rows)


class SVDD(SearchPolicy):
    """Chooses at every denoising step. One candidate is the chain's own sampling, bit for bit.

    Args:
        policy: a policy whose chain is random at every step.
        critic: chooses.
        count: M.
        alpha: temperature in units of the return; 0 takes the best candidate.

    Raises:
        ConfigError: a chain whose only randomness is its start.
    """

    def __init__(self, policy: Policy, critic: ChunkCritic, count: int, alpha: float = 0.0) -> None:
        if not policy.chain.stochastic:
            raise ConfigError(
                f"evaluate.candidates needs a chain with random steps, '{policy.chain.config.name}' has none: use "
                "evaluate.best_of"
            )
        super().__init__(policy, critic, count)
        self.alpha = alpha

    @property
    def noise_points(self) -> int:
        """x_0, M for each step, and one for each step's lot."""
        return 1 + self.chain.steps * (self.count + 1)

    @property
    def network_calls(self) -> dict[str, int]:
        """One velocity a step, one more for each candidate's expected action but the last step's, and their values."""
        steps, chosen_of = self.chain.steps, self.count if self.count > 1 else 0
        return {"velocity": steps + (steps - 1) * chosen_of, "critic": steps * chosen_of}

    def sample(self, cond: Cond, noise: Float[Tensor, "point env chunk action"], deterministic: bool = False) -> Path:
        """The path of the candidates that were chosen."""
        del deterministic
        chain, drawn = self.chain, 1 + self.chain.steps * self.count
        draws, lots = noise[1:drawn].unflatten(0, (chain.steps, self.count)), noise[drawn:]
        x = noise[0] if chain.starts_from_noise else torch.zeros_like(noise[0])
        everywhere = torch.ones(len(x), dtype=torch.bool, device=x.device)
        latents = [x]
        for k, t in enumerate(chain.times):
            step = chain.move(self.network, cond, x, torch.full_like(x[:, 0, 0], t), everywhere)
            x = self._chosen(cond, step.mean + step.std * chain.cut(draws[k]), k + 1, uniform(lots[k]))
            latents.append(x)
        nowhere = torch.zeros((len(latents), len(x)), dtype=torch.bool, device=x.device)
        return Path(torch.stack(latents), nowhere, x.clamp(-1, 1))

    def _chosen(
        self,
        cond: Cond,
        candidates: Float[Tensor, "candidate env chunk action"],
        point: int,
        u: Float[Tensor, " env"],
    ) -> Chunk:
        if self.count == 1:
            return candidates[0]
        values = self.values(cond, self._expected(cond, candidates, point))
        return candidates[choose(values, self.alpha, u), torch.arange(len(u), device=u.device)]

    def _expected(
        self, cond: Cond, candidates: Float[Tensor, "candidate env chunk action"], point: int
    ) -> Float[Tensor, "candidate env chunk action"]:
        """The actions that paths at point k of the chain are expected to end in."""
        if point == self.chain.steps:
            return candidates
        x = candidates.flatten(0, 1)
        t = torch.full_like(x[:, 0, 0], self.chain.times[point])
        return self.chain.predicted(self.network, cond.repeat(self.count), x, t).view_as(candidates)


class BestOfN(SearchPolicy):
    """Chooses among whole deterministic paths. The first is the policy's own, so that one is the policy, bit for bit.

    Args:
        policy: a policy whose chain starts from noise.
        critic: chooses.
        count: N.

    Raises:
        ConfigError: a chain whose deterministic path is always the same.
    """

    def __init__(self, policy: Policy, critic: ChunkCritic, count: int) -> None:
        if not policy.chain.starts_from_noise:
            raise ConfigError(
                f"evaluate.best_of needs a chain that starts from noise, '{policy.chain.config.name}' does not: use "
                "evaluate.candidates"
            )
        super().__init__(policy, critic, count)

    @property
    def noise_points(self) -> int:
        """N starts."""
        return self.count

    @property
    def network_calls(self) -> dict[str, int]:
        """N paths and their values."""
        return {"velocity": self.count * self.chain.steps, "critic": self.count if self.count > 1 else 0}

    def sample(self, cond: Cond, noise: Float[Tensor, "point env chunk action"], deterministic: bool = False) -> Path:
        """The path with the largest Q."""
        del deterministic
        paths = self.chain.sample(self.network, cond.repeat(self.count), noise.flatten(0, 1)[None], deterministic=True)
        if self.count == 1:
            return paths
        best = self.values(cond, paths.action.view_as(noise)).argmax(0)
        rows = torch.arange(len(best), device=best.device)
        return paths[best * len(rows) + rows]


def choose(values: Float[Tensor, "candidate env"], alpha: float, u: Float[Tensor, " env"]) -> Int[Tensor, " env"]:
    """A candidate for each row, with probability softmax(values / alpha); the best one at alpha = 0.

    Args:
        values: of the candidates.
        alpha: temperature.
        u: uniform in [0, 1], the row's lot.
    """
    if alpha == 0:
        return values.argmax(0)
    below = (values / alpha).softmax(0).cumsum(0) < u
    return below.sum(0).clamp(max=len(values) - 1)
