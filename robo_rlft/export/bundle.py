"""Writing a controller bundle: export the model, record the golden pairs, verify what was written, then publish it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from robo_rlft.errors import ConfigError
from robo_rlft.export.card import evaluations, model_card
from robo_rlft.export.chunking import check_continuable, continued
from robo_rlft.export.facts import runtime_json
from robo_rlft.export.golden import golden_inputs, residual_inputs
from robo_rlft.export.graph import CorrectedAction, DeterministicPolicy, ExportedModel, to_onnx
from robo_rlft.export.manifest import (
    CARD_FILE,
    GOLDEN_FILE,
    IMAGE_TOLERANCE,
    MANIFEST_FILE,
    MODEL_FILE,
    NORMALISED,
    RESIDUAL,
    RESIDUAL_FILE,
    RTC,
    RUNTIME_FILE,
    TOLERANCE,
    WEIGHTS_FILE,
    Manifest,
    Normaliser,
    ResidualStage,
    Stage,
    sha256,
    to_yaml,
)
from robo_rlft.export.metadata import annotated, metadata
from robo_rlft.export.native_format import NativeNetwork
from robo_rlft.export.publish import publish
from robo_rlft.export.robot_file import described, read_robot_file, timing_of_file
from robo_rlft.export.runtime import Controller
from robo_rlft.export.timing import timing_of
from robo_rlft.export.weights import native_network
from robo_rlft.policies import Policy
from robo_rlft.policies.guidance import GuidedPolicy
from robo_rlft.policies.normaliser import Affine
from robo_rlft.policies.residual import ResidualPolicy
from robo_rlft.policies.search import SearchPolicy
from robo_rlft.spec import RobotSpec
from robo_rlft.training.compare import plain
from robo_rlft.training.config import Config
from robo_rlft.training.paths import acting_path, run_folder
from robo_rlft.training.policies import adapted_policy
from robo_rlft.training.progress import summary_table


@dataclass(frozen=True)
class Extras:
    """What a bundle holds beside the policy.

    Attributes:
        timing: seconds by field of `Timing`, over those that follow from rate and chunk.
        records: evaluations for the model card.
        rtc: real-time chunking, one of `RTC`.
        prefix: P of it; 0 takes the actions of a chunk after those that are executed.
    """

    timing: Mapping[str, float] = field(default_factory=dict)
    records: Sequence[Mapping[str, Any]] = ()
    rtc: str = RTC[0]
    prefix: int = 0


def export(config: Config) -> Path:
    """The verb: write the bundle of a run (`run.checkpoint`, else the recipe's fine-tuning run).

    Raises:
        CheckpointError: the run has no readable checkpoint.
        ConfigError: the robot file or a setting does not fit the policy.
        BundleError, RunError: see `write_bundle`.
    """
    settings = config.export
    run = acting_path(config)
    acting = replace(config, evaluate=replace(config.evaluate, guidance=settings.guidance))
    policy, meta = adapted_policy(acting, run, "best" if settings.checkpoint == "best" else "last")
    target = Path(settings.dir) if settings.dir else run_folder(run) / "bundle"
    source = {"run": run_folder(run).name, "checkpoint": settings.checkpoint} | {
        k: meta[k] for k in _SOURCE if k in meta
    }
    file = read_robot_file(settings.robot_file) if settings.robot_file else {}
    _describe(policy, file)
    _execute(policy, settings.execute)
    extras = Extras(timing_of_file(file), evaluations(run_folder(run)), settings.rtc, settings.prefix)
    bundle = write_bundle(policy, target, source=source, overwrite=settings.overwrite, extras=extras)
    summary_table(f"controller bundle {bundle}", [describe_bundle(bundle)])
    return bundle


def describe_bundle(bundle: Path) -> dict[str, object]:
    """A row for `summary_table`: what the bundle is, and how exactly ONNX Runtime reproduces torch."""
    controller = Controller(bundle)
    stage = controller.manifest.stage
    return {
        "robot": controller.manifest.robot.env_id,
        "chain": f"{stage.chain}, K = {stage.steps}{' + residual' if controller.manifest.residual else ''}",
        "chunk": f"{stage.execute} of {stage.chunk} at {controller.manifest.robot.rate_hz:g} Hz",
        "model": f"{sum(p.stat().st_size for p in bundle.glob('*.onnx')) / 1e6:.2f} MB",
        "largest error": f"{controller.golden_error:.1e}",
    }


def _describe(policy: Policy, file: Mapping[str, Any]) -> None:
    """Put the facts of a robot file in place of those the policy was trained with; of a residual, in its base's."""
    acting = policy.base if isinstance(policy, ResidualPolicy) else policy
    acting.robot = described(acting.robot, file)


def _execute(policy: Policy, actions: int) -> None:
    """Let fewer or more actions of a chunk be executed than in training; 0 leaves it.

    Raises:
        ConfigError: the chunk has not so many, or a residual was trained with its own number.
    """
    if actions and (isinstance(policy, ResidualPolicy) or not 1 <= actions <= policy.config.chunk):
        raise ConfigError(
            f"export.execute={actions} must be between 1 and policy.chunk {policy.config.chunk}, and a residual keeps "
            "the number it was trained with: leave it out"
        )
    policy.config = replace(policy.config, execute=actions or policy.config.execute)


_SOURCE = ("algorithm", "ema", "counters", "versions", "seed", "git")
"""What a bundle repeats of its checkpoint's description."""


def write_bundle(
    policy: Policy,
    target: Path | str,
    *,
    source: Mapping[str, Any],
    overwrite: bool = False,
    extras: Extras | None = None,
) -> Path:
    """Write the bundle of a policy, whole or not at all (`publish`).

    Args:
        policy: the policy; it stays as it is.
        target: the bundle's folder. One that holds the same bundle already is left alone.
        source: plain data about where the policy came from.
        overwrite: replace another bundle at `target`.
        extras: timing and records; None: what follows from the policy.

    Raises:
        ConfigError: the policy is a search, or cannot continue chunks.
        BundleError: ONNX Runtime and torch disagree, or `target` holds something else.
        RunError: the disk is full or the place cannot be written.
    """
    asked = extras or Extras()
    if asked.rtc != RTC[0]:
        check_continuable(policy, asked.rtc)
    if isinstance(policy, SearchPolicy):
        raise ConfigError(
            "a search by a critic cannot be exported: export the policy alone with evaluate.candidates=0 "
            "evaluate.best_of=0"
        )
    return publish(_contents(policy, source, asked), target, overwrite)


def _contents(policy: Policy, source: Mapping[str, Any], extras: Extras) -> dict[str, bytes]:
    draft = _manifest(policy, source, extras)
    files, pairs = _models(policy, draft)
    if (network := _network(policy, draft)) is not None:
        draft = replace(draft, native=network.section)
        files[WEIGHTS_FILE] = network.to_bytes()
    return sealed(draft, files, pairs, extras.records)


def _network(policy: Policy, draft: Manifest) -> NativeNetwork | None:
    """The plain network, where there is one and nothing else than what it computes is asked for."""
    if isinstance(policy, ResidualPolicy) or draft.stage.rtc == "guided":
        return None
    return native_network(DeterministicPolicy(policy).policy, draft.stage.prefix)


def _models(policy: Policy, draft: Manifest) -> tuple[dict[str, bytes], dict[str, np.ndarray]]:
    """The ONNX files by name, and the golden arrays."""
    if not isinstance(policy, ResidualPolicy):
        module = continued(policy, draft.stage.rtc, draft.stage.prefix)
        return {MODEL_FILE: to_onnx(module)}, _pairs(module, golden_inputs(draft))
    planner, correction = DeterministicPolicy(policy.base, NORMALISED), CorrectedAction(policy)
    pairs = _pairs(planner, golden_inputs(draft))
    pairs |= {f"{RESIDUAL}/{k}": v for k, v in _pairs(correction, residual_inputs(draft)).items()}
    return {MODEL_FILE: to_onnx(planner), RESIDUAL_FILE: to_onnx(correction)}, pairs


def sealed(
    draft: Manifest,
    files: Mapping[str, bytes],
    pairs: Mapping[str, np.ndarray],
    records: Sequence[Mapping[str, Any]] = (),
) -> dict[str, bytes]:
    """Every file of a bundle: models with their metadata, golden pairs, model card, facts, and the manifest on top.

    Args:
        draft: the manifest without hashes.
        files: models and weights by name.
        pairs: golden arrays by name.
        records: evaluations for the model card.
    """
    facts = metadata(draft)
    whole = {n: annotated(data, facts) if n.endswith(".onnx") else data for n, data in files.items()}
    buffer = io.BytesIO()
    np.savez(buffer, **pairs)  # pyright: ignore[reportArgumentType]
    whole |= {GOLDEN_FILE: buffer.getvalue(), CARD_FILE: model_card(draft, records)}
    named = replace(draft, files=_hashes(whole))
    whole[RUNTIME_FILE] = runtime_json(named)
    return {**whole, MANIFEST_FILE: to_yaml(replace(named, files=_hashes(whole)))}


def _hashes(files: Mapping[str, bytes]) -> dict[str, str]:
    return {name: sha256(data) for name, data in files.items()}


def _pairs(model: ExportedModel, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {**inputs, "action": model.answer(inputs)}


def _manifest(policy: Policy, source: Mapping[str, Any], extras: Extras) -> Manifest:
    """What a bundle says, but for hashes: of a residual, the robot is its base's, in the task it was trained on."""
    if isinstance(policy, ResidualPolicy):
        base = policy.base
        task = {"task": policy.robot.task, "max_episode_steps": policy.robot.max_episode_steps}
        draft = _manifest(base, source, extras)
        robot = replace(draft.robot, env_id=policy.robot.env_id, **plain(task))
        residual = ResidualStage(RESIDUAL_FILE, robot.rate_hz, tuple(base.vector_keys), policy.scale)
        return replace(draft, robot=robot, stage=replace(draft.stage, units=NORMALISED), residual=residual)
    config, robot = policy.config, _robot(policy)
    prefix = 0 if extras.rtc == RTC[0] else extras.prefix or config.chunk - config.execute
    return Manifest(
        robot=robot,
        stage=Stage(
            name="policy",
            file=MODEL_FILE,
            rate_hz=robot.rate_hz / config.execute,
            observation=tuple(config.obs_keys),
            obs_horizon=config.obs_horizon,
            chunk=config.chunk,
            execute=config.execute,
            chain=config.chain.name,
            steps=policy.chain.steps,
            noise="standard_normal" if policy.chain.starts_from_noise else "unused",
            guidance=float(policy.weight) if isinstance(policy, GuidedPolicy) else None,
            rtc=extras.rtc,
            prefix=prefix,
        ),
        normalisation={
            **{key: _normaliser(policy.obs_affine(key), policy.obs_affine(key).clip) for key in policy.vector_keys},
            "action": _normaliser(policy.action_norm, clip=1.0),
        },
        source=plain(source),
        files={},
        timing=replace(timing_of(robot.rate_hz, config.chunk, config.execute), **extras.timing),
        tolerance=IMAGE_TOLERANCE if policy.image_keys else TOLERANCE,
    )


def _robot(policy: Policy) -> RobotSpec:
    """The policy's robot with the observations it reads only: a robot need not offer those of the value function."""
    robot = RobotSpec.from_dict(plain(policy.robot.to_dict()))
    return replace(robot, observation={key: robot.observation[key] for key in policy.config.obs_keys})


def _normaliser(affine: Affine, clip: float) -> Normaliser:
    return Normaliser(tuple(affine.offset.tolist()), tuple(affine.scale.tolist()), clip)
