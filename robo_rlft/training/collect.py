"""Recording demonstrations from a scripted expert or a policy: the verb `collect`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from robo_rlft.data import DatasetWriter, Episode
from robo_rlft.envs import experts
from robo_rlft.envs.base import BatchEnv, ChunkResult, Obs
from robo_rlft.errors import ConfigError
from robo_rlft.training.config import Config
from robo_rlft.training.evaluate import percent
from robo_rlft.training.paths import data_path
from robo_rlft.training.policies import load_policy
from robo_rlft.training.progress import Progress, console
from robo_rlft.training.rollout import History
from robo_rlft.training.setup import make_env, prepare
from robo_rlft.training.statistics import wilson

SEED = 2_000_000
"""First seed of recorded episodes, apart from those of training and evaluation."""


class Source(Protocol):
    """Something that acts: chunks of one or more steps."""

    def start(self, obs: Obs) -> None:
        """All environments begin an episode."""
        ...

    def act(self) -> Tensor:
        """Actions for all environments, [N, steps, A], in the robot's units."""
        ...

    def push(self, result: ChunkResult) -> None:
        """Take in what happened."""
        ...


def collect(config: Config, *, overwrite: bool = False) -> Path:
    """Record episodes into a zarr data set and print the success rate.

    Returns:
        The data set's folder.

    Raises:
        ConfigError: too few successes within `collect.max_attempts`, or an unknown `collect.keep`.
        DataError: the data set is there already.
    """
    prepare(config)
    settings, target = config.collect, data_path(config)
    if settings.keep not in ("success", "all"):
        raise ConfigError(f"collect.keep is '{settings.keep}': choose 'success' or 'all'")
    env = make_env(config, min(settings.num_envs, settings.episodes), **settings.params)
    try:
        source = _source(config, env)
        provenance = {"collect": settings.source, "keep": settings.keep, "seed": config.seed, "env": config.env.id}
        with DatasetWriter(target, env.robot, provenance, overwrite=overwrite) as writer:
            tally = _record(config, env, source, writer)
            writer.commit()
    finally:
        env.close()
    console.print(f"{target}: {settings.episodes} episodes; {settings.source} {tally.summary(env.has_success)}")
    return target


@dataclass
class _Tally:
    """Episodes tried, kept or not.

    Attributes:
        returns: of each, undiscounted.
        won: how many succeeded.
    """

    returns: list[float] = field(default_factory=list)
    won: int = 0

    def count(self, episode: Episode) -> None:
        self.returns.append(float(episode.reward.sum()))
        self.won += episode.success

    def shown(self, has_success: bool) -> dict[str, float]:
        tried = len(self.returns)
        score = {"success": self.won / max(tried, 1)} if has_success else {"return": sum(self.returns) / max(tried, 1)}
        return {"tried": tried, **score}

    def summary(self, has_success: bool) -> str:
        tried = len(self.returns)
        if has_success:
            return f"succeeded in {percent(wilson(self.won, tried))} of {tried}"
        return f"reached a mean return of {sum(self.returns) / tried:,.0f} in {tried}"


def _record(config: Config, env: BatchEnv, source: Source, writer: DatasetWriter) -> _Tally:
    """Record until enough episodes are kept."""
    settings = config.collect
    limit = settings.max_attempts or 20 * settings.episodes
    recorder = _Recorder(env)
    tally = _Tally()
    # Seeds of one collection never meet those of another with a different config.seed.
    obs, _ = env.reset(seed=SEED + 100_000 * config.seed)
    source.start(obs)
    recorder.start(obs)
    with Progress("collect", settings.episodes, unit="episodes") as progress:
        while writer.num_episodes < settings.episodes:
            result = env.step_chunk(action := source.act(), "all")
            for episode in recorder.push(action, result):
                tally.count(episode)
                keep = (episode.success or settings.keep == "all") and writer.num_episodes < settings.episodes
                if keep:
                    writer.append(episode)
            source.push(result)
            progress.update(writer.num_episodes, tally.shown(env.has_success))
            if len(tally.returns) >= limit and writer.num_episodes < settings.episodes:
                raise ConfigError(
                    f"kept {writer.num_episodes} of {settings.episodes} episodes in {len(tally.returns)} attempts: "
                    f"raise collect.max_attempts, keep failures with collect.keep=all, or use a better "
                    f"collect.source than '{settings.source}'"
                )
    return tally


class _Recorder:
    """Cuts the stream of chunks of a batch into episodes."""

    def __init__(self, env: BatchEnv) -> None:
        self.env = env
        self.rows: list[list[tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]]] = [[] for _ in range(env.num_envs)]
        self.first: list[dict[str, np.ndarray]] = []

    def start(self, obs: Obs) -> None:
        self.first = [{k: v[i].cpu().numpy().copy() for k, v in obs.items()} for i in range(self.env.num_envs)]

    def push(self, action: Tensor, result: ChunkResult) -> list[Episode]:
        assert result.trace is not None
        trace = {k: v.cpu().numpy() for k, v in result.trace.items()}
        acts, rewards = action.cpu().numpy(), result.reward.cpu().numpy()
        finished: list[Episode] = []
        for i, length in enumerate(result.length.tolist()):
            seen = {k: v[i, 1 : length + 1].copy() for k, v in trace.items()}
            self.rows[i].append((seen, acts[i, :length].copy(), rewards[i, :length].copy()))
            if bool(result.done[i]):
                finished.append(self._cut(i, result))
        return finished

    def _cut(self, i: int, result: ChunkResult) -> Episode:
        rows, first = self.rows[i], self.first[i]
        self.rows[i] = []
        self.first[i] = {k: v[i].cpu().numpy().copy() for k, v in result.obs.items()}
        return Episode(
            observation={k: np.concatenate([first[k][None], *(r[0][k] for r in rows)]) for k in first},
            action=np.concatenate([r[1] for r in rows]).astype(np.float32),
            reward=np.concatenate([r[2] for r in rows]).astype(np.float32),
            terminated=bool(result.terminated[i]),
            truncated=bool(result.truncated[i]),
            success=bool(result.success[i]),
        )


class _ExpertSource:
    """A scripted expert, one step at a time."""

    def __init__(self, env: BatchEnv, seed: int) -> None:
        self.expert = experts.make(env, seed)
        self.obs: Obs = {}

    def start(self, obs: Obs) -> None:
        self.obs = obs
        self.expert.reset()

    def act(self) -> Tensor:
        return self.expert.act(self.obs).unsqueeze(1)

    def push(self, result: ChunkResult) -> None:
        self.obs = result.obs
        ended = result.done.nonzero().flatten().tolist()
        if ended:
            self.expert.reset(ended)


class _PolicySource:
    """A trained policy with its exploration noise (or without)."""

    def __init__(self, config: Config, env: BatchEnv) -> None:
        self.policy, _ = load_policy(config.collect.source)
        self.policy.robot.check(env.robot, f"policy {config.collect.source}", f"environment {config.env.id}")
        self.policy.to(config.device)
        self.deterministic = config.collect.deterministic or not self.policy.chain.has_likelihood
        self.history = History(self.policy.config.obs_horizon, self.policy.config.obs_keys)
        self.generator = torch.Generator(config.device).manual_seed(config.seed)

    def start(self, obs: Obs) -> None:
        self.history.start(obs)

    @torch.no_grad()
    def act(self) -> Tensor:
        chunk = self.policy.act(self.history.frames, self.generator, self.deterministic)
        return chunk[:, : self.policy.config.execute]

    def push(self, result: ChunkResult) -> None:
        self.history.push(result)


def _source(config: Config, env: BatchEnv) -> Source:
    return _ExpertSource(env, config.seed) if config.collect.source == "expert" else _PolicySource(config, env)


__all__ = ["collect"]
