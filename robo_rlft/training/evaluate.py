"""Evaluation: fixed seeds, N episodes, one code path for every method, simulator and runtime."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from robo_rlft.envs.base import BatchEnv, Obs
from robo_rlft.errors import ConfigError
from robo_rlft.noise import episode_noise
from robo_rlft.policies import Policy
from robo_rlft.training.checkpoint import Name
from robo_rlft.training.config import Config
from robo_rlft.training.files import atomic_write
from robo_rlft.training.paths import acting_path, run_folder
from robo_rlft.training.player import plan_of
from robo_rlft.training.policies import adapted_policy
from robo_rlft.training.progress import console, summary_table
from robo_rlft.training.report import report_for
from robo_rlft.training.report_html import by_variant
from robo_rlft.training.residual import acting_env
from robo_rlft.training.rollout import History
from robo_rlft.training.setup import make_env, prepare
from robo_rlft.training.statistics import Interval, bootstrap_mean, wilson
from robo_rlft.training.video import write_mp4

Actor = Callable[[Obs, Float[Tensor, "env *noise"]], Float[Tensor, "env execute action"]]
"""(observations with history, starting noise) -> actions to execute, in the robot's units."""
TRAINING_SEED = 500_000
"""First seed of evaluations during training: apart from those of training and of the final evaluation."""


VIDEO_FPS = 30.0
"""Videos show about as many frames a second, in real time."""


@dataclass(frozen=True)
class EpisodeResult:
    """One evaluated episode.

    Attributes:
        seed: where it started.
        ret: undiscounted return.
        length: control steps.
        success: the task's own success.
        metrics: the figures of `BatchEnv.metrics`.
        variant: of the environment's variants, which this was.
    """

    seed: int
    ret: float
    length: int
    success: bool
    metrics: dict[str, float] = field(default_factory=dict)
    variant: int = 0


def evaluate(config: Config, *, name: str = "", checkpoint: Name = "last") -> dict[str, Any]:
    """Evaluate a run or checkpoint (`run.checkpoint`, else the recipe's fine-tuning run): the verb `evaluate`.

    Writes `evaluation/<name>.json` and videos into the run's folder. The name is `final`, or says how the policy was
    changed (`guidance`, `steps`), so that the run's own result stays.

    Returns:
        The record that was written.
    """
    prepare(config)
    source = acting_path(config)
    policy, meta = adapted_policy(config, source, checkpoint)
    name = name or adaptation(config) or "final"
    record = evaluate_policy(config, policy, name=name, folder=run_folder(source))
    counters = meta["counters"]
    record |= {"checkpoint": str(source), "env_steps": counters.get("env_steps", 0)}
    write_record(run_folder(source), record)
    report_for(run_folder(source))
    rows = [describe_record(row) for row in (record, *by_variant(record))]
    summary_table(f"{config.env.id}: {config.evaluate.episodes} episodes", rows)
    return record


def adaptation(config: Config) -> str:
    """How the evaluated policy differs from the trained one, as a name: `guidance-1.5`, `steps-2`; empty if not."""
    settings = config.evaluate
    parts = [] if settings.guidance is None else [f"guidance-{settings.guidance:g}"]
    parts += [f"candidates-{settings.candidates}"] if settings.candidates else []
    parts += [f"alpha-{settings.alpha:g}"] if settings.alpha else []
    parts += [f"best_of-{settings.best_of}"] if settings.best_of else []
    return "-".join(parts + ([f"steps-{settings.steps}"] if settings.steps else []))


def evaluate_policy(config: Config, policy: Policy, *, name: str, folder: Path, videos: bool = True) -> dict[str, Any]:
    """Evaluate a policy on the configured seeds; videos go to `folder/videos`."""
    settings = config.evaluate
    policy = policy.to(config.device)
    seeds = range(settings.seed, settings.seed + settings.episodes)
    record = _measured(config, policy, name, seeds, settings.num_envs)
    if videos and settings.videos:
        record["videos"] = film(config, policy, folder / "videos", name)
    return record


def evaluate_in_training(config: Config, policy: Policy, folder: Path, iteration: int) -> dict[str, Any]:
    """A smaller evaluation on seeds of its own, without videos."""
    seeds = range(TRAINING_SEED, TRAINING_SEED + config.run.eval_episodes)
    record = _measured(config, policy, f"training-{iteration:06d}", seeds, config.env.num_envs)
    write_record(folder, record)
    return record


def figures_of(record: dict[str, Any]) -> dict[str, float]:
    """An evaluation's success, or return where the task has none, as figures of a run."""
    score = record["success"] or record["return"]
    figures = {f"evaluation/{name}": score[key] for name, key in (("score", "mean"), ("low", "low"), ("high", "high"))}
    each = {row["variant"]: row["success"] or row["return"] for row in record.get("variants", ())}
    return figures | {f"evaluation/variant/{name}": score["mean"] for name, score in each.items()}


def actor_of(policy: Policy) -> Actor:
    """The policy's deterministic path from given noise, [N, H, A], or what a search makes of [N, points, H, A]."""
    plan = plan_of(policy)
    return lambda obs, noise: policy.to_robot(plan(obs, noise)[:, : policy.config.execute])


def play(
    env: BatchEnv, actor: Actor, seeds: Sequence[int], noise: tuple[int, ...], history: History
) -> list[EpisodeResult]:
    """One episode per seed, `env.num_envs` at a time. Episode i is variant i mod V of the environment's V variants.

    Chunk c of the episode with seed s gets `episode_noise(s, c)` of shape `noise`, whoever computes the policy, so that
    a policy and its exported controller face the same episodes with the same noise.
    """
    results: list[EpisodeResult] = []
    for first in range(0, len(seeds), env.num_envs):
        choose_variants(env, first)
        wave = list(seeds[first : first + env.num_envs])
        # A last, smaller wave fills up with its first seed; those copies are not counted.
        padded = wave + [wave[0]] * (env.num_envs - len(wave))
        results += _play_wave(env, actor, padded, noise, history)[: len(wave)]
    return results


def choose_variants(env: BatchEnv, first: int = 0) -> None:
    """The next episodes, numbered from `first`, take the environment's variants in turn."""
    if (count := len(env.variants)) > 1:
        env.set_variants([(first + i) % count for i in range(env.num_envs)])


def film(config: Config, policy: Policy, folder: Path, name: str) -> list[str]:
    """Videos of the first evaluation episodes; returns paths relative to the run's folder.

    A machine that cannot render gives no videos and one line that says so.
    """
    count = config.evaluate.videos
    env = acting_env(policy, make_env(config, count))
    try:
        clips = _film(env, actor_of(policy), config, policy)
    except ConfigError as error:
        console.print(f"no videos: {error}", markup=False, soft_wrap=True)
        return []
    finally:
        env.close()
    fps = policy.robot.rate_hz / _stride(policy)
    paths = [write_mp4(folder / f"{name}-{i}.mp4", clip, fps) for i, clip in enumerate(clips)]
    return [str(p.relative_to(folder.parent)) for p in paths]


def make_record(name: str, env: BatchEnv, episodes: list[EpisodeResult], seconds: float) -> dict[str, Any]:
    """The evaluation as plain data: success with Wilson's interval (tasks that have one), return with a bootstrap.

    Of an environment with several variants also `variants`, the same figures of each.
    """
    rows = [{"seed": e.seed, "return": e.ret, "length": e.length, "success": e.success, **e.metrics} for e in episodes]
    record = {
        "name": name,
        "env_id": env.robot.env_id,
        **_scores(env, episodes),
        "per_seed": rows,
        "wall_seconds": seconds,
        "videos": [],
    }
    if len(env.variants) > 1:
        for row, episode in zip(rows, episodes, strict=True):
            row["variant"] = env.variants[episode.variant]
        groups = {name: [e for e in episodes if e.variant == i] for i, name in enumerate(env.variants)}
        record["variants"] = [{"variant": n, **_scores(env, g)} for n, g in groups.items() if g]
    return record


def _scores(env: BatchEnv, episodes: list[EpisodeResult]) -> dict[str, Any]:
    """How many, the success with Wilson's interval (of tasks that have one), return and metrics with a bootstrap's."""
    wins = sum(e.success for e in episodes)
    return {
        "episodes": len(episodes),
        "success": wilson(wins, len(episodes)).to_dict() if env.has_success else None,
        "return": bootstrap_mean(np.array([e.ret for e in episodes])).to_dict(),
        "metrics": {m: bootstrap_mean(np.array([e.metrics[m] for e in episodes])).to_dict() for m in env.metrics},
    }


def write_record(folder: Path, record: dict[str, Any]) -> Path:
    """Keep a record under the run's `evaluation` folder."""
    path = folder / "evaluation" / f"{record['name']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, json.dumps(record, indent=1).encode())
    return path


def _measured(config: Config, policy: Policy, name: str, seeds: Sequence[int], num_envs: int) -> dict[str, Any]:
    """One episode per seed, as a record."""
    start = time.perf_counter()
    env = acting_env(policy, make_env(config, min(num_envs, len(seeds))))
    try:
        policy.robot.check(env.robot, "the policy", f"environment {config.env.id}")
        history = History(policy.config.obs_horizon, policy.config.obs_keys)
        episodes = play(env, actor_of(policy.eval()), seeds, policy.evaluation_noise, history)
    finally:
        env.close()
    return make_record(name, env, episodes, time.perf_counter() - start) | {"network_calls": policy.network_calls}


def describe_record(record: Mapping[str, Any]) -> dict[str, object]:
    """A row for `summary_table`."""
    row: dict[str, object] = {"policy": record["name"], "episodes": record["episodes"]}
    if record["success"]:
        row["success"] = percent(Interval(**record["success"]))
    value = Interval(**record["return"])
    if "network_calls" in record:
        row["network calls"] = sum(record["network_calls"].values())
    for name, figure in record.get("metrics", {}).items():
        row[name.replace("_", " ")] = f"{figure['mean']:.3g}"
    return row | {
        "return": f"{value.mean:.4g} [{value.low:.4g}, {value.high:.4g}]",
        "seconds": round(record["wall_seconds"], 1),
    }


def percent(rate: Interval) -> str:
    """`63.0 % [56.1, 69.4]`."""
    return f"{100 * rate.mean:.1f} % [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"


def _play_wave(
    env: BatchEnv, actor: Actor, seeds: list[int], shape: tuple[int, ...], history: History
) -> list[EpisodeResult]:
    n = env.num_envs
    obs, _ = env.reset(seed=seeds)
    variant = env.variant
    history.start(obs)
    ret, length = np.zeros(n), np.zeros(n, np.int64)
    success, alive = np.zeros(n, bool), np.ones(n, bool)
    metrics: list[dict[str, float]] = [{} for _ in seeds]
    chunk = 0
    while alive.any():
        noise = torch.from_numpy(np.stack([episode_noise(s, chunk, shape) for s in seeds]))
        result = env.step_chunk(actor(history.frames, noise), "all" if history.needs_trace else "last")
        # In double precision the sum does not depend on how many steps a chunk has.
        ret += alive * result.reward.double().sum(1).cpu().numpy()
        length += alive * result.length.cpu().numpy()
        success |= alive & result.success.cpu().numpy()
        for i in np.flatnonzero(alive):
            metrics[i] = {name: float(values[i]) for name, values in result.metrics.items()}
        alive &= ~result.done.cpu().numpy()
        history.push(result)
        chunk += 1
    return [
        EpisodeResult(seed, float(ret[i]), int(length[i]), bool(success[i]), metrics[i], int(variant[i]))
        for i, seed in enumerate(seeds)
    ]


def _film(env: BatchEnv, actor: Actor, config: Config, policy: Policy) -> list[np.ndarray]:
    n = env.num_envs
    seeds = [config.evaluate.seed + i for i in range(n)]
    choose_variants(env)
    obs, _ = env.reset(seed=seeds)
    history = History(policy.config.obs_horizon, policy.config.obs_keys)
    history.start(obs)
    camera = config.evaluate.camera or None
    clips: list[list[np.ndarray]] = [[frame] for frame in env.render(camera=camera)]
    alive, step, stride = np.ones(n, bool), 0, _stride(policy)
    for chunk in range(policy.robot.max_episode_steps):
        noise = torch.from_numpy(np.stack([episode_noise(s, chunk, policy.evaluation_noise) for s in seeds]))
        actions = actor(history.frames, noise)
        for i in range(actions.shape[1]):
            result = env.step_chunk(actions[:, i : i + 1], "all" if history.needs_trace else "last")
            history.push(result)
            step, alive = step + 1, alive & ~result.done.cpu().numpy()
            if not alive.any():
                return [_hold(clip, policy.robot.rate_hz / stride) for clip in clips]
            if step % stride == 0:
                shown = np.flatnonzero(alive).tolist()
                for e, frame in zip(shown, env.render(shown, camera), strict=True):
                    clips[e].append(frame)
    return [_hold(clip, policy.robot.rate_hz / stride) for clip in clips]


def _stride(policy: Policy) -> int:
    """Control steps per frame of a video: rendering without a GPU takes longer than an eye needs at 125 Hz."""
    return max(1, round(policy.robot.rate_hz / VIDEO_FPS))


def _hold(clip: list[np.ndarray], fps: float) -> np.ndarray:
    """Rest on the last frame for half a second, so that a loop shows how the episode ended."""
    return np.stack(clip + [clip[-1]] * int(0.5 * fps))


__all__ = [
    "Actor",
    "EpisodeResult",
    "evaluate",
    "evaluate_in_training",
    "evaluate_policy",
    "figures_of",
    "play",
    "write_record",
]
