"""Recording demonstrations from a scripted expert or a policy: the verb `collect`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from robo_rlft.data import Dataset, DatasetWriter, Episode
from robo_rlft.data.layout import HEADER_FILE
from robo_rlft.envs.base import BatchEnv, ChunkResult, Obs
from robo_rlft.errors import ConfigError, DataError
from robo_rlft.training.config import Config
from robo_rlft.training.evaluate import choose_variants, percent
from robo_rlft.training.paths import data_path
from robo_rlft.training.plans import PlanSource
from robo_rlft.training.progress import Progress, console
from robo_rlft.training.setup import make_env, prepare
from robo_rlft.training.sources import Source, make_source
from robo_rlft.training.statistics import wilson

SEED = 2_000_000
"""First seed of recorded episodes, apart from those of training and evaluation."""


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
    if (target / HEADER_FILE).exists() and not (settings.append or overwrite):
        raise DataError(
            f"{target} holds a data set: add to it with collect.append=true, or remove the folder to record it anew"
        )
    env = make_env(config, min(settings.num_envs, settings.episodes), **settings.params)
    try:
        first = _first_seed(config, target)
        source = make_source(config, env, config.seed + first - _block(config.seed))
        provenance = {"collect": settings.source, "keep": settings.keep, "seed": config.seed, "env": config.env.id}
        provenance |= {"first_seed": first, "num_envs": env.num_envs}
        provenance |= {"actor": settings.actor, "teacher_share": settings.teacher_share} if settings.actor else {}
        with DatasetWriter(target, env.robot, provenance, resume=settings.append, overwrite=overwrite) as writer:
            if isinstance(source, PlanSource):
                tally = _record_plans(config, env, source, writer)
            else:
                tally = _record(config, env, source, writer, range(first, first + env.num_envs))
            writer.commit()
            count = writer.num_episodes
    finally:
        env.close()
    actor = settings.actor or settings.source
    console.print(f"{target}: {count} episodes; {actor} {tally.summary(env.has_success)}")
    return target


def _block(seed: int) -> int:
    """Seeds of one collection never meet those of another with a different config.seed."""
    return SEED + 100_000 * seed


def _first_seed(config: Config, target: Path) -> int:
    """Where the environments start: beyond every start that an existing data set, if one is added to, has used."""
    if not (config.collect.append and (target / HEADER_FILE).exists()):
        return _block(config.seed)
    source = Dataset.open(target).source
    return max([_block(config.seed), *(_end(record) for record in (source, *source.get("resumed", [])))])


def _end(record: Mapping[str, Any]) -> int:
    """The seed after those of one recording; records that do not say leave room for many environments."""
    return int(record.get("first_seed", _block(record.get("seed", 0)))) + int(record.get("num_envs", 10_000))


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


def _record(config: Config, env: BatchEnv, source: Source, writer: DatasetWriter, seeds: Sequence[int]) -> _Tally:
    """Record until enough episodes are kept."""
    settings, before = config.collect, writer.num_episodes
    limit = settings.max_attempts or 20 * settings.episodes
    recorder = _Recorder(env, seeds)
    tally = _Tally()
    choose_variants(env)
    obs, _ = env.reset(seed=seeds)
    source.start(obs, seeds)
    recorder.start(obs)
    with Progress("collect", settings.episodes, unit="episodes") as progress:
        while (kept := writer.num_episodes - before) < settings.episodes:
            action, label = source.act()
            result = env.step_chunk(action, "all")
            for episode in recorder.push(label, result):
                tally.count(episode)
                if (episode.success or settings.keep == "all") and kept < settings.episodes:
                    writer.append(episode)
                    kept += 1
            source.push(result)
            choose_variants(env, len(tally.returns))
            progress.update(kept, tally.shown(env.has_success))
            if len(tally.returns) >= limit and kept < settings.episodes:
                raise ConfigError(
                    f"kept {kept} of {settings.episodes} episodes in {len(tally.returns)} attempts: "
                    f"raise collect.max_attempts, keep failures with collect.keep=all, or use a better "
                    f"collect.source than '{settings.source}'"
                )
    return tally


def _record_plans(config: Config, env: BatchEnv, source: PlanSource, writer: DatasetWriter) -> _Tally:
    """Play plan after plan, as many side by side as there are environments, until enough episodes are kept."""
    settings, before, tally = config.collect, writer.num_episodes, _Tally()
    with Progress("collect", settings.episodes, unit="episodes") as progress:
        for seeds in source.waves():
            for episode in _played(env, source, seeds):
                tally.count(episode)
                if (episode.success or settings.keep == "all") and writer.num_episodes - before < settings.episodes:
                    writer.append(episode)
            kept = writer.num_episodes - before
            progress.update(kept, tally.shown(env.has_success))
            if kept == settings.episodes:
                return tally
    raise ConfigError(
        f"kept {writer.num_episodes - before} episodes of {len(tally.returns)} plans, and collect.episodes is "
        f"{settings.episodes}: lower it, or plan more"
    )


def _played(env: BatchEnv, source: PlanSource, seeds: Sequence[int]) -> Iterator[Episode]:
    """The episodes of some seeds, each once."""
    recorder, waiting = _Recorder(env, seeds), set(seeds)
    obs, _ = env.reset(seed=seeds)
    source.start(obs, seeds)
    recorder.start(obs)
    while waiting:
        action, label = source.act()
        result = env.step_chunk(action, "all")
        for episode in recorder.push(label, result):
            if episode.seed in waiting:
                waiting.discard(episode.seed)
                yield episode
        source.push(result)


class _Recorder:
    """Cuts the stream of chunks of a batch into episodes.

    An environment's first episode starts from its seed, those after it from what the seed's generator gives next.
    """

    def __init__(self, env: BatchEnv, seeds: Sequence[int]) -> None:
        self.env = env
        self.seeds: list[int | None] = list(seeds)
        self.rows: list[list[tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]]] = [[] for _ in range(env.num_envs)]
        self.first: list[dict[str, np.ndarray]] = []
        self.words: list[str] = []

    def start(self, obs: Obs) -> None:
        self.words = self.env.instructions
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
        self.words = self.env.instructions
        return finished

    def _cut(self, i: int, result: ChunkResult) -> Episode:
        rows, first, seed = self.rows[i], self.first[i], self.seeds[i]
        self.rows[i], self.seeds[i] = [], None
        self.first[i] = {k: v[i].cpu().numpy().copy() for k, v in result.obs.items()}
        return Episode(
            observation={k: np.concatenate([first[k][None], *(r[0][k] for r in rows)]) for k in first},
            action=np.concatenate([r[1] for r in rows]).astype(np.float32),
            reward=np.concatenate([r[2] for r in rows]).astype(np.float32),
            terminated=bool(result.terminated[i]),
            truncated=bool(result.truncated[i]),
            success=bool(result.success[i]),
            task=self.words[i],
            seed=seed,
        )


__all__ = ["collect"]
