"""The verb `run`: a controller bundle drives the simulated robot, from a process that knows no torch."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robo_rlft.envs.base import BatchEnv, Obs
from robo_rlft.envs.images import ImagesConfig
from robo_rlft.errors import BundleError
from robo_rlft.export.acting import ActingPolicy
from robo_rlft.export.client import PolicyProcess
from robo_rlft.export.latency import Latency, Timings, measure
from robo_rlft.export.manifest import BASE_ACTION, PHASE, Manifest, read_manifest
from robo_rlft.noise import episode_noise
from robo_rlft.spec import IMAGE_PREFIX, ArraySpec, RobotSpec
from robo_rlft.training.config import Config
from robo_rlft.training.evaluate import Actor, EpisodeResult, describe_record, make_record, play
from robo_rlft.training.files import atomic_write, make_folder
from robo_rlft.training.player import ChunkPlayer, Plan
from robo_rlft.training.progress import summary_table
from robo_rlft.training.residual import PlayedEnv
from robo_rlft.training.rollout import History
from robo_rlft.training.setup import make_env

CALLS = 2000
"""Single-row calls whose latency is measured: 99.9 % leaves two above."""


def run(
    bundle: Path | str,
    config: Config,
    *,
    json_path: Path | str | None = None,
    calls: int = CALLS,
    policy: ActingPolicy | None = None,
) -> dict[str, Any]:
    """Run a bundle in closed loop on the evaluation's episodes and noise, and measure its latency.

    Args:
        bundle: the bundle's folder.
        config: `env` says where (`for_bundle` takes it from the bundle), `evaluate` which episodes.
        json_path: also write the record there.
        calls: single-row calls to time.
        policy: what computes the bundle, and is closed at the end; None starts a process of its own.

    Returns:
        The evaluation's record (`success`, `return`, `per_seed` ...) with `bundle`, `golden_error` and `latency`.

    Raises:
        BundleError: the bundle is incomplete, altered or of another format, or its process ended.
        SpecError: the environment is not the robot the bundle was made for.
    """
    with policy or PolicyProcess(bundle) as policy, _simulator(policy.manifest.robot, bundle, config) as env:
        _check_light(policy)
        timings = _single_row(env, policy, config.evaluate.seed, calls)
        start, batch = time.perf_counter(), []
        seeds = range(config.evaluate.seed, config.evaluate.seed + config.evaluate.episodes)
        episodes = _play(env, policy, seeds, batch, config.evaluate.guidance)
        record = make_record("controller", env, episodes, time.perf_counter() - start)
    record |= {"bundle": str(bundle), "golden_error": policy.golden_error}
    record["latency"] = _latency_rows(timings, policy.reached, env.num_envs, batch)
    _show(record, policy.manifest)
    if json_path:
        _write_json(Path(json_path), record)
    return record


def _play(
    env: BatchEnv, policy: ActingPolicy, seeds: Sequence[int], seconds: list[float], guidance: float | None
) -> list[EpisodeResult]:
    """The evaluation's episodes; `seconds` notes how long each batch's call took inside the process."""
    stage, event = policy.manifest.stage, policy.manifest.event
    keys = list(stage.observation)
    if policy.manifest.residual is None:
        history = History(stage.obs_horizon, keys)
        return play(env, _actor(policy, seconds, guidance), seeds, event, history)
    player = ChunkPlayer(_planner(policy), event, stage.execute, History(stage.obs_horizon, keys))
    played = BundleEnv(env, player, policy.manifest)
    history = History(1, [*keys, BASE_ACTION, PHASE])
    return play(played, _corrector(policy, seconds), seeds, (1, event[1]), history)


class BundleEnv(PlayedEnv):
    """An environment in which a bundle's policy plays its chunks: it tells their next action and their phase.

    Args:
        env: what is acted in.
        player: the bundle's policy.
        manifest: says what the bundle's residual reads.
    """

    def __init__(self, env: BatchEnv, player: ChunkPlayer, manifest: Manifest) -> None:
        seen = {key: env.robot.observation[key] for key in manifest.stage.observation}
        told = {BASE_ACTION: ArraySpec(env.robot.action.shape), PHASE: ArraySpec((1,))}
        super().__init__(env, player, replace(env.robot, observation={**seen, **told}))

    def observe(self, obs: Obs) -> Obs:
        """The robot's observations, the next action of every chunk, and how far it is."""
        return {**self.player.newest, BASE_ACTION: self.player.action, PHASE: self.player.phase}

    def command(self, action: Tensor) -> Tensor:
        """The residual's model gives the action in the robot's units already."""
        return action


def for_bundle(config: Config, bundle: Path | str, *, chosen: bool = False) -> Config:
    """The configuration with the environment the bundle was made for; parameters that are set stay.

    Args:
        config: the settings.
        bundle: the bundle's folder.
        chosen: the user named the environment (`env.id` or a recipe): then it stays, and `run` compares it.
    """
    if chosen:
        return config
    manifest = read_manifest(bundle)
    params, images = {**manifest.robot.task, **config.env.params}, _images(manifest, config.env.images)
    return replace(config, env=replace(config.env, id=manifest.robot.env_id, params=params, images=images))


def _images(manifest: Manifest, config: ImagesConfig) -> ImagesConfig:
    """The cameras and the size of the bundle's images, looking as the configuration says."""
    if not manifest.images:
        return config
    height, width, _ = manifest.robot.observation[manifest.images[0]].shape
    return replace(config, cameras=[key.removeprefix(IMAGE_PREFIX) for key in manifest.images], size=[height, width])


@contextmanager
def _simulator(robot: RobotSpec, bundle: Path | str, config: Config) -> Iterator[BatchEnv]:
    """The environment, if it is the robot of the bundle."""
    env = make_env(config, min(config.evaluate.num_envs, config.evaluate.episodes))
    try:
        robot.check(env.robot, f"bundle {bundle}", f"environment {config.env.id}")
        yield env
    finally:
        env.close()


def _check_light(policy: ActingPolicy) -> None:
    if policy.modules:
        raise BundleError(
            f"the policy process has loaded {', '.join(policy.modules)}, which a robot does not have: a start-up file "
            "of this Python (sitecustomize, a .pth file) imports it; remove it there"
        )


def _actor(policy: ActingPolicy, seconds: list[float], guidance: float | None) -> Actor:
    """The bundle as the evaluation's actor; notes how long each batch took inside the process."""
    execute = policy.manifest.stage.execute

    def act(obs: Obs, noise: Tensor) -> Tensor:
        action = policy.act(_arrays(obs), noise.numpy(), guidance)
        seconds.append(policy.inference_s)
        device = next(iter(obs.values())).device
        return torch.from_numpy(action[:, :execute]).to(device)

    return act


def _planner(policy: ActingPolicy) -> Plan:
    """The bundle's chunks, as a player asks for them."""
    return lambda obs, noise: torch.from_numpy(policy.act(_arrays(obs), noise.numpy()))


def _corrector(policy: ActingPolicy, seconds: list[float]) -> Actor:
    """The bundle's residual as the evaluation's actor in a `BundleEnv`."""

    def act(obs: Obs, noise: Tensor) -> Tensor:
        newest = {key: value[:, -1] for key, value in _arrays(obs).items()}
        base_action, phase = newest.pop(BASE_ACTION), newest.pop(PHASE)
        action = policy.correct(newest, base_action, phase)
        seconds.append(policy.inference_s)
        return torch.from_numpy(action).unsqueeze(1).to(obs[PHASE].device)

    return act


def _arrays(obs: Obs) -> dict[str, np.ndarray]:
    return {key: value.cpu().numpy() for key, value in obs.items()}


def _single_row(env: BatchEnv, policy: ActingPolicy, seed: int, calls: int) -> dict[str, Timings]:
    """One row at a time, as on a robot, from the first observation of the first episode: by stage."""
    stage = policy.manifest.stage
    obs, _ = env.reset(seed=seed)
    first = {key: obs[key][:1].cpu().numpy()[:, None] for key in stage.observation}
    repeated = {key: np.repeat(value, stage.obs_horizon, axis=1) for key, value in first.items()}
    noise = episode_noise(seed, 0, policy.manifest.event)[None]
    timings = {"": measure(policy, lambda: policy.act(repeated, noise), calls)}
    if policy.manifest.residual is not None:
        newest = {key: value[:, 0] for key, value in first.items()}
        action, phase = np.zeros((1, policy.manifest.event[1]), np.float32), np.zeros((1, 1), np.float32)
        timings["correction: "] = measure(policy, lambda: policy.correct(newest, action, phase), calls)
    return timings


def _latency_rows(timings: dict[str, Timings], reached: str, num_envs: int, batch: list[float]) -> list[dict[str, Any]]:
    """Of every stage alone, and of what the simulation asked for all environments: the last stage."""
    kinds = {(f"{stage}inference", 1): found.inference for stage, found in timings.items()}
    kinds |= {(f"{stage}round trip {reached}", 1): found.round_trip for stage, found in timings.items()}
    kinds[f"{list(timings)[-1]}inference", num_envs] = Latency.of(batch)
    return [{"call": name, "rows": rows, **latency.to_dict()} for (name, rows), latency in kinds.items()]


def _show(record: dict[str, Any], manifest: Manifest) -> None:
    row = describe_record(record) | {"golden check": f"passed, error {record['golden_error']:.1e}"}
    summary_table(f"{record['env_id']}: controller {record['bundle']}", [row])
    due = f"the policy is due every {1e3 / manifest.stage.rate_hz:g} ms"
    due += f", its correction every {1e3 / manifest.residual.rate_hz:g} ms" if manifest.residual else ""
    summary_table(f"latency in µs ({due})", [_rounded(r) for r in record["latency"]])


def _rounded(row: dict[str, Any]) -> dict[str, object]:
    return {k.removesuffix("_us"): round(v) if k.endswith("_us") else v for k, v in row.items()}


def _write_json(path: Path, record: dict[str, Any]) -> None:
    make_folder(path.parent)
    atomic_write(path, json.dumps(record, indent=1).encode())


__all__ = ["CALLS", "for_bundle", "run"]
