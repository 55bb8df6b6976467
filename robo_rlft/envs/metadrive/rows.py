"""Worlds that several cars share, one car per row: parameter sharing needs no more than that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from robo_rlft.envs.base import BatchEnv, ChunkResult, Obs, Record
from robo_rlft.envs.checks import checked_actions, checked_ids
from robo_rlft.envs.metadrive.episode import METRICS
from robo_rlft.envs.pool.env import PoolEnv
from robo_rlft.errors import SpecError
from robo_rlft.spec import POLICY_KEY, ArraySpec

_FINAL, _EVENTS = "final", "events"
CANNOT = {
    "same_seed_same_episode": "the cars of a world share it: only whole worlds have a seed, that of their first car",
    "resets_only_those_asked": "the cars of a world share it: it is reset as a whole",
    "state_comes_back": "MetaDrive's states drift when they are restored",
    "forks_are_equal": "a car cannot be put into another's place in traffic",
}
"""What rows of one world cannot do."""


class AgentRows(BatchEnv):
    """Worlds of A cars each as rows; row w * A + a is car a of world w.

    Where rows fill no whole number of worlds, the simulator's expert drives the other cars of the last one.

    A row whose episode has ended gets a new car after the chunk, at a spawn point that is free. Until there is one it
    waits: it sees zeros, its actions do nothing and its reward is 0.

    Args:
        pool: worlds, see `JointWorld`.
        num_envs: rows, N.
        horizon: control steps of a car's episode.
        car: action of one car.
    """

    has_success = True
    has_expert = True
    fidelity = "none"
    metrics = METRICS
    cannot = CANNOT

    def __init__(self, pool: PoolEnv, num_envs: int, horizon: int, car: ArraySpec) -> None:
        self._pool, seen = pool, pool.robot.observation[POLICY_KEY]
        self._agents = seen.shape[0]
        self.num_envs, self.device = num_envs, pool.device
        self._others = pool.num_envs * self._agents - num_envs
        observation = {POLICY_KEY: ArraySpec(seen.shape[1:], names=seen.names)}
        self.robot = replace(pool.robot, observation=observation, action=car, max_episode_steps=horizon)
        self.set_spaces()
        self._metrics = torch.zeros(self.num_envs, len(METRICS), dtype=torch.float64, device=self.device)
        self._obs: Obs = {}

    @property
    def nan_resets(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Worlds begun anew by the NaN guard."""
        return self._pool.nan_resets

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Obs, dict[str, Any]]:
        """See `BatchEnv.reset`. World w gets the seed of its first row.

        Raises:
            SpecError: `ids` that are not whole worlds.
        """
        rows = checked_ids((options or {}).get("ids"), self.num_envs)
        worlds = np.unique(rows // self._agents)
        if not np.array_equal(np.sort(rows), np.flatnonzero(np.isin(np.arange(self.num_envs) // self._agents, worlds))):
            raise SpecError(
                f"{self.robot.env_id} got ids {rows.tolist()}: its worlds of {self._agents} cars are reset as a whole"
            )
        first = [int(np.flatnonzero(rows == w * self._agents)[0]) for w in worlds]
        seeds = _seeds(seed, rows)
        obs, _ = self._pool.reset(seed=seeds and [seeds[i] for i in first], options={"ids": worlds})
        self._metrics[torch.from_numpy(rows).to(self.device)] = 0.0
        self._obs = {POLICY_KEY: self._rows(obs[POLICY_KEY])}
        return dict(self._obs), {"success": torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)}

    def step(
        self, actions: Float[Tensor, "env action"]
    ) -> tuple[Obs, Float[Tensor, " env"], Bool[Tensor, " env"], Bool[Tensor, " env"], dict[str, Any]]:
        """See `BatchEnv.step`."""
        if actions.ndim != 2:
            raise SpecError(f"{self.robot.env_id} got actions of shape {tuple(actions.shape)}: expected 2 axes")
        result = self.step_chunk(actions.unsqueeze(1))
        info = {"final_obs": result.final_obs, "_final_obs": result.done, "success": result.success}
        return result.obs, result.reward[:, 0], result.terminated, result.truncated, info | {"metrics": result.metrics}

    def step_chunk(self, actions: Float[Tensor, "env chunk action"], record: Record = "last") -> ChunkResult:
        """See `BatchEnv.step_chunk`."""
        steps = actions.shape[1] if actions.ndim == 3 else 1
        shape = (self.num_envs, steps, *self.robot.action.shape)
        values = checked_actions(self.robot.env_id, self.robot.action, actions, shape)
        if not self._obs:
            self.reset()
        flags = {k: torch.zeros(self.num_envs, dtype=torch.bool, device=self.device) for k in ("end", "cut", "won")}
        reward = torch.zeros(self.num_envs, steps, dtype=self._pool.dtype, device=self.device)
        length = torch.full((self.num_envs,), steps, device=self.device)
        seen = [fresh := self._obs[POLICY_KEY]]
        for h in range(steps):
            fresh, last, events = self._advance(values[:, h], fill=h == steps - 1)
            alive = ~(flags["end"] | flags["cut"])
            events = events * alive[:, None]
            reward[:, h] = events[:, 0].to(reward.dtype)
            for name, column in (("end", 1), ("cut", 2), ("won", 3)):
                flags[name] = flags[name] | (events[:, column] > 0)
            ended = alive & (flags["end"] | flags["cut"])
            length[ended] = h + 1
            self._enter_metrics(events, alive)
            seen.append(torch.where(alive[:, None], last, seen[-1]))
        self._obs = {POLICY_KEY: fresh}
        return self._result(reward, flags, length, seen, record)

    def expert_actions(self) -> Float[Tensor, "env action"]:
        """What an expert would do in every row."""
        return self._rows(self._pool.expert_actions()[:, :-1].unflatten(1, (self._agents, 2)))

    def render(
        self, ids: Sequence[int] | None = None, camera: str | None = None, size: tuple[int, int] = (240, 320)
    ) -> np.ndarray:
        """See `BatchEnv.render`. Each row's picture is its world."""
        worlds = checked_ids(ids, self.num_envs) // self._agents
        unique, index = np.unique(worlds, return_inverse=True)
        return self._pool.render(unique.tolist(), camera, size)[index]

    def close_extras(self, **kwargs: Any) -> None:
        """Close the worlds; `close` calls it."""
        self._pool.close()

    def _advance(self, actions: Float[np.ndarray, "env action"], fill: bool) -> tuple[Tensor, Tensor, Tensor]:
        """One control step of all worlds: what every row sees now, what it saw before new cars came, and its events."""
        worlds = self._pool.num_envs
        joint = np.full((worlds, 2 * self._agents + 1), 1.0 if fill else -1.0)
        if self._others:
            joint[:, :-1] = self._pool.expert_actions()[:, :-1].cpu().numpy()
        cars = joint[:, :-1].reshape(-1, 2).copy()
        cars[: self.num_envs] = actions
        joint[:, :-1] = cars.reshape(worlds, -1)
        obs, *_ = self._pool.step(torch.from_numpy(joint))
        return self._rows(obs[POLICY_KEY]), self._rows(obs[_FINAL]), self._rows(obs[_EVENTS])

    def _enter_metrics(self, events: Tensor, alive: Tensor) -> None:
        self._metrics = torch.where(alive[:, None], events[:, 4:], self._metrics)

    def _result(
        self, reward: Tensor, flags: dict[str, Tensor], length: Tensor, seen: list[Tensor], record: Record
    ) -> ChunkResult:
        return ChunkResult(
            obs=dict(self._obs),
            reward=reward,
            terminated=flags["end"],
            truncated=flags["cut"] & ~flags["end"],
            length=length,
            final_obs={POLICY_KEY: seen[-1]},
            success=flags["won"],
            trace={POLICY_KEY: torch.stack(seen, 1)} if record == "all" else None,
            metrics={name: self._metrics[:, i].clone() for i, name in enumerate(METRICS)},
        )

    def _rows(self, values: Float[Tensor, "world agent *rest"]) -> Float[Tensor, "env *rest"]:
        return values.flatten(0, 1)[: self.num_envs]


def _seeds(seed: int | Sequence[int] | None, rows: np.ndarray) -> list[int] | None:
    if seed is None:
        return None
    return [int(seed) + int(i) for i in rows] if isinstance(seed, int | np.integer) else [int(s) for s in seed]
