"""The chunks of a frozen policy played one step at a time, each environment at its own place in its own chunk."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from robo_rlft.envs.base import ChunkResult, EnvState, Obs
from robo_rlft.noise import episode_noise
from robo_rlft.policies import Policy
from robo_rlft.training.rollout import History

Plan = Callable[[Obs, Float[Tensor, "env *points chunk action"]], Float[Tensor, "env chunk action"]]
"""(observations with history, starting noise) -> whole chunks of actions, in whatever unit the caller wants."""
BLOCK = 16
"""Rows that matrix products take together."""


def plan_of(policy: Policy) -> Plan:
    """The policy's deterministic path from given noise, [N, H, A], or what a search makes of [N, points, H, A], in
    normalised units.

    A row's chunk does not depend, to the last bit, on the rows beside it: matrix products round differently for a few
    odd rows at a batch's end, so batches fill up to whole blocks.
    """

    @torch.no_grad()
    def plan(obs: Obs, noise: Tensor) -> Tensor:
        count = len(noise)
        rows = torch.arange(-(-count // BLOCK) * BLOCK) % count
        cond = policy.encode({key: obs[key][rows.to(obs[key].device)] for key in policy.config.obs_keys})
        points = noise.view(count, -1, *policy.event)[rows.to(noise.device)].transpose(0, 1)
        return policy.sample(cond, points.to(cond.vector.device), deterministic=True).action[:count]

    return plan


class ChunkPlayer:
    """N environments that each play a chunk of their own.

    A row gets a new chunk when it has played `execute` actions of the old one or begins an episode, from its own
    observations and the noise of its own episode (`robo_rlft.noise`), so that it acts as it would alone. The policy is
    asked for those rows only.

    Args:
        plan: gives chunks.
        event: (chunk length H, action width A).
        execute: actions of a chunk that are played.
        history: of the observations that `plan` reads.

    Attributes:
        chunk: the present chunks, [N, H, A].
    """

    def __init__(self, plan: Plan, event: tuple[int, int], execute: int, history: History) -> None:
        self.execute, self.history = execute, history
        self.chunk = torch.zeros(0, *event)
        self._plan, self._event = plan, event
        self._place = np.zeros(0, np.int64)
        """Index of the next action in the chunk, [N]."""
        self._chunks = np.zeros(0, np.int64)
        """Chunks begun in the present episode, [N]."""
        self._origin = np.zeros(0, np.int64)
        """Seed that was given last, [N]."""
        self._episode = np.zeros(0, np.int64)
        """Episodes since then, [N]."""

    @classmethod
    def of(cls, policy: Policy) -> ChunkPlayer:
        """Of a policy, in its normalised units."""
        config = policy.config
        history = History(config.obs_horizon, config.obs_keys)
        return cls(plan_of(policy), policy.event, config.execute, history)

    def start(self, obs: Obs, seeds: Sequence[int]) -> None:
        """All environments begin an episode with `obs`, [N, ...], from seeds of their own."""
        count, device = len(seeds), obs[self.history.keys[0]].device
        self.history.start(obs)
        self.chunk = torch.zeros(count, *self._event, device=device)
        self._place, self._chunks = np.zeros(count, np.int64), np.zeros(count, np.int64)
        self._origin, self._episode = np.array(seeds, np.int64), np.zeros(count, np.int64)
        self._renew(np.arange(count))

    def restart(self, obs: Obs, rows: Bool[np.ndarray, " env"], seeds: Sequence[int] | None = None) -> None:
        """Some environments begin an episode: nothing of what they did before is left.

        Args:
            obs: the first observations, [N, ...]; other rows are not looked at.
            rows: which.
            seeds: of those rows in order; None goes on to the next seed of each.
        """
        ids = np.flatnonzero(rows)
        self.history.restart(obs, torch.from_numpy(rows).to(self.chunk.device))
        self._episode[ids] += 1
        if seeds is not None:
            self._origin[ids], self._episode[ids] = np.array(seeds, np.int64), 0
        self._chunks[ids] = 0
        self._renew(ids)

    def advance(self, result: ChunkResult) -> None:
        """Take in one control step, as if no episode had ended; `restart` follows for those that did."""
        self.history.advance(result)
        self._place += 1
        self._renew(np.flatnonzero(self._place >= self.execute))

    @property
    def action(self) -> Float[Tensor, "env action"]:
        """The next action of every environment."""
        rows = torch.arange(len(self._place), device=self.chunk.device)
        return self.chunk[rows, torch.from_numpy(self._place).to(self.chunk.device)]

    @property
    def phase(self) -> Float[Tensor, "env 1"]:
        """Share of every chunk that was played, [0, 1)."""
        return (torch.from_numpy(self._place).to(self.chunk) / self.execute).unsqueeze(1)

    @property
    def newest(self) -> Obs:
        """The present observations, [N, ...]."""
        return {key: frames[:, -1] for key, frames in self.history.frames.items()}

    def get_state(self, ids: Sequence[int]) -> EnvState:
        """Everything that decides what some rows play next, one row each."""
        rows = {name: getattr(self, f"_{name}")[list(ids)].copy() for name in _COUNTERS}
        tensors = {"chunk": self.chunk, **{f"frames/{k}": v for k, v in self.history.frames.items()}}
        return rows | {name: value[list(ids)].cpu().numpy().copy() for name, value in tensors.items()}

    def set_state(self, state: EnvState, ids: Sequence[int]) -> None:
        """Put saved rows into rows `ids` of a player that was started."""
        index = list(ids)
        for name in _COUNTERS:
            getattr(self, f"_{name}")[index] = state[name]
        self.chunk = _placed(self.chunk, index, state["chunk"])
        frames = self.history.frames
        self.history.frames = {k: _placed(v, index, state[f"frames/{k}"]) for k, v in frames.items()}

    def _renew(self, ids: np.ndarray) -> None:
        if not len(ids):
            return
        noise = np.stack([episode_noise(self._seed(i), int(self._chunks[i]), self._event) for i in ids])
        rows = torch.from_numpy(ids).to(self.chunk.device)
        seen = {key: frames[rows] for key, frames in self.history.frames.items()}
        self.chunk[rows] = self._plan(seen, torch.from_numpy(noise)).to(self.chunk)
        self._place[ids] = 0
        self._chunks[ids] += 1

    def _seed(self, row: int) -> int:
        """That of the present episode: the given one for the first, drawn from it for each after."""
        origin, episode = int(self._origin[row]), int(self._episode[row])
        if episode == 0:
            return origin
        return int(np.random.SeedSequence([origin, episode]).generate_state(1, np.uint64)[0])


_COUNTERS = ("place", "chunks", "origin", "episode")


def _placed(values: Tensor, ids: list[int], rows: np.ndarray) -> Tensor:
    """A copy with some rows replaced."""
    out = values.clone()
    out[ids] = torch.from_numpy(np.array(rows)).to(values)
    return out
