"""Experience: a policy acting in a batch of environments, chunk by chunk."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from robo_rlft.envs.base import BatchEnv, ChunkResult, Obs
from robo_rlft.learning.common.gae import chunk_reward
from robo_rlft.learning.config import CurriculumConfig
from robo_rlft.policies import Policy
from robo_rlft.policies.chains import Path
from robo_rlft.spec import IMAGE_PREFIX
from robo_rlft.training.curriculum import Curriculum, Episode


class History:
    """The last `horizon` observations of every environment; an episode's first one stands for those before it.

    Args:
        horizon: observations kept.
        keys: observation groups kept.
    """

    def __init__(self, horizon: int, keys: list[str]) -> None:
        self.horizon = horizon
        self.keys = keys
        self.frames: Obs = {}

    @property
    def needs_trace(self) -> bool:
        """Whether `push` must see every observation of a chunk."""
        return self.horizon > 1

    def start(self, obs: Obs) -> None:
        """All environments begin an episode with `obs`, [N, ...]."""
        self.frames = {k: _repeat(obs[k], self.horizon) for k in self.keys}

    def push(self, result: ChunkResult) -> None:
        """Take in a chunk: its last observations, or the new episode's first where the old one ended."""
        self.advance(result)
        if bool(result.done.any()):
            self.restart(result.obs, result.done)

    def advance(self, result: ChunkResult) -> None:
        """Take in a chunk as if no episode had ended in it."""
        self.frames = self.after(result)

    def restart(self, obs: Obs, rows: Bool[Tensor, " env"]) -> None:
        """Some environments begin an episode with their rows of `obs`."""
        for key in self.keys:
            fresh = _repeat(obs[key], self.horizon)
            self.frames[key] = torch.where(rows.view(-1, *[1] * (fresh.ndim - 1)), fresh, self.frames[key])

    def after(self, result: ChunkResult) -> Obs:
        """What a policy would see after a chunk if no episode ended in it; to be asked before `push`."""
        return {k: self._seen(k, result) if self.horizon > 1 else result.final_obs[k][:, None] for k in self.keys}

    def _seen(self, key: str, result: ChunkResult) -> Tensor:
        """The last `horizon` observations up to the last executed step."""
        assert result.trace is not None
        line = torch.cat([self.frames[key], result.trace[key][:, 1:]], dim=1)
        rows = torch.arange(len(line), device=line.device)[:, None]
        return line[rows, result.length[:, None] + torch.arange(self.horizon, device=line.device)]


@dataclass
class Stopwatch:
    """Seconds spent by named part."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def time(self, part: str) -> Iterator[None]:
        """Add the block's wall time to a part."""
        start = time.perf_counter()
        yield
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - start


@dataclass(frozen=True)
class Rollout:
    """T chunks of N environments; rows are (time, env) flattened, time first.

    Attributes:
        obs: what the policy saw, with history, [T * N, obs_horizon, ...].
        critic_obs: newest observations of every group but images, [T * N, ...].
        final_obs: those after each chunk, before any reset, [T * N, ...].
        next_obs: what the policy would have seen there, with history, [T * N, obs_horizon, ...]; of a collector that
            looks ahead.
        path: sampled paths, T * N rows.
        reward: discounted reward within each chunk, [T, N].
        executed: control steps executed, [T, N].
        terminated: [T, N].
        truncated: [T, N].
        episodes: finished episodes: undiscounted return, length in control steps, success.
        variant: which of the environment's variants each chunk was of, [T, N].
        metrics: the figures of `BatchEnv.metrics` of those episodes.
    """

    obs: Obs
    critic_obs: Obs
    final_obs: Obs
    next_obs: Obs
    path: Path
    reward: Float[Tensor, "time env"]
    executed: Int[Tensor, "time env"]
    terminated: Bool[Tensor, "time env"]
    truncated: Bool[Tensor, "time env"]
    episodes: list[Episode]
    variant: Int[np.ndarray, "time env"]
    metrics: dict[str, list[float]] = field(default_factory=dict)

    @property
    def env_steps(self) -> int:
        """Control steps executed in all."""
        return int(self.executed.sum())

    def figures(self, seconds: Mapping[str, float], nan_resets: int) -> dict[str, float]:
        """What a round's metrics say of its experience: means over the episodes that ended, times and rates.

        Args:
            seconds: by part of the round.
            nan_resets: see `BatchEnv`.
        """
        values = {f"time/{k}": v for k, v in seconds.items()}
        if self.episodes:
            means = np.array(self.episodes, dtype=np.float64).mean(0)
            values |= {f"rollout/{k}": float(v) for k, v in zip(("return", "length", "success"), means, strict=True)}
            values |= {f"rollout/{name}": float(np.mean(figures)) for name, figures in self.metrics.items()}
        values["rollout/episodes"] = len(self.episodes)
        values["rollout/nan_resets"] = nan_resets
        return values | {"rate/env_steps_per_s": self.env_steps / max(sum(seconds.values()), 1e-9)}


class Collector:
    """Runs one policy in one batch of environments and keeps their episodes going between calls.

    Args:
        env: the environments.
        policy: gives horizons and keys.
        gamma: discount per control step.
        generator: source of the exploration noise.
        seed: seed of the first environment.
        looks_ahead: also keep what the policy would see after each chunk.
        curriculum: which variants and starts to practise; None takes every variant equally often.
    """

    def __init__(
        self,
        env: BatchEnv,
        policy: Policy,
        gamma: float,
        generator: torch.Generator,
        seed: int,
        looks_ahead: bool = False,
        curriculum: CurriculumConfig | None = None,
    ) -> None:
        self.env, self.looks_ahead = env, looks_ahead
        self.gamma = gamma
        self.generator = generator
        self.watch = Stopwatch()
        self.history = History(policy.config.obs_horizon, policy.config.obs_keys)
        self.curriculum = Curriculum(env, curriculum or CurriculumConfig(), seed)
        self.curriculum.choose()
        self.obs, _ = env.reset(seed=seed)
        self.curriculum.begin()
        self.history.start(self.obs)
        self.returns = torch.zeros(env.num_envs)
        self.lengths = torch.zeros(env.num_envs, dtype=torch.long)

    @torch.no_grad()
    def collect(self, policy: Policy, chunks: int) -> Rollout:
        """Act for a number of chunks in every environment."""
        steps: list[dict[str, Any]] = []
        episodes: list[Episode] = []
        metrics: dict[str, list[float]] = {name: [] for name in self.env.metrics}
        self.curriculum.choose()
        for _ in range(chunks):
            frames, newest, variant = dict(self.history.frames), _vectors(self.obs), self.env.variant
            with self.watch.time("inference"):
                cond = policy.encode(frames)
                path = policy.sample(cond, policy.draw_noise(len(cond), self.generator))
                action = policy.to_robot(path.action[:, : policy.config.execute])
            with self.watch.time("simulation"):
                result = self.env.step_chunk(action, "all" if self.history.needs_trace else "last")
            after = self.history.after(result) if self.looks_ahead else {}
            row = {"frames": frames, "newest": newest, "after": after, "path": path, "result": result}
            steps.append({**row, "variant": variant})
            finished = self._account(result)
            episodes += finished
            for name, values in result.metrics.items():
                metrics[name] += values[result.done].tolist()
            with self.watch.time("simulation"):
                result = self.curriculum.next(result, finished)
            self.obs = result.obs
            self.history.push(result)
        return replace(_stack(steps, episodes, self.gamma), metrics=metrics)

    def fork(self, group: int) -> None:
        """Put every `group` neighbouring environments into the present state of the first of them."""
        leaders = torch.arange(self.env.num_envs) // group * group
        for leader in leaders.unique().tolist():
            self.obs = self.env.fork(leader, range(leader, leader + group))
        self.history.frames = {k: v[leaders.to(v.device)] for k, v in self.history.frames.items()}
        self.returns, self.lengths = self.returns[leaders], self.lengths[leaders]
        self.curriculum.fork(leaders.tolist())

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on as if nothing had happened."""
        return {
            "env": self.env.get_state() if self.env.fidelity != "none" else None,
            "frames": self.history.frames,
            "obs": self.obs,
            "returns": self.returns,
            "lengths": self.lengths,
            "curriculum": self.curriculum.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> bool:
        """Inverse of `state_dict`. Returns False when episodes start anew: the environment cannot be restored."""
        if "curriculum" in state:  # earlier versions had none
            self.curriculum.load_state_dict(state["curriculum"], continued=state["env"] is not None)
        if state["env"] is None:
            return False
        self.env.set_state(state["env"])
        device = self.env.device
        self.history.frames = {k: v.to(device) for k, v in state["frames"].items()}
        self.obs = {k: v.to(device) for k, v in state["obs"].items()}
        self.returns, self.lengths = state["returns"].clone(), state["lengths"].clone()
        return self.env.fidelity == "exact"

    def _account(self, result: ChunkResult) -> list[Episode]:
        self.returns += result.reward.sum(1).cpu()
        self.lengths += result.length.cpu()
        ended = result.done.nonzero().flatten().tolist()
        finished = [(float(self.returns[i]), int(self.lengths[i]), bool(result.success[i])) for i in ended]
        self.returns[ended] = 0
        self.lengths[ended] = 0
        return finished


def _vectors(obs: Obs) -> Obs:
    """Everything but images: the value function reads none, and a rollout of them is large."""
    return {k: v for k, v in obs.items() if not k.startswith(IMAGE_PREFIX)}


def _repeat(x: Tensor, horizon: int) -> Tensor:
    return x.unsqueeze(1).repeat_interleave(horizon, dim=1)


def _stack(steps: list[dict[str, Any]], episodes: list[Episode], gamma: float) -> Rollout:
    results: list[ChunkResult] = [s["result"] for s in steps]
    paths: list[Path] = [s["path"] for s in steps]
    return Rollout(
        obs=_cat([s["frames"] for s in steps]),
        critic_obs=_cat([s["newest"] for s in steps]),
        final_obs=_cat([_vectors(r.final_obs) for r in results]),
        next_obs=_cat([s["after"] for s in steps]),
        path=Path(
            torch.cat([p.latents for p in paths], dim=1),
            torch.cat([p.scored for p in paths], dim=1),
            torch.cat([p.action for p in paths]),
        ),
        reward=torch.stack([chunk_reward(r.reward, gamma) for r in results]),
        executed=torch.stack([r.length for r in results]),
        terminated=torch.stack([r.terminated for r in results]),
        truncated=torch.stack([r.truncated for r in results]),
        episodes=episodes,
        variant=np.stack([s["variant"] for s in steps]),
    )


def _cat(parts: list[Obs]) -> Obs:
    return {k: torch.cat([p[k] for p in parts]) for k in parts[0]}
