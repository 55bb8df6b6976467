"""Writing a controller bundle: export the model, record the golden pairs, verify what was written, then publish it."""

from __future__ import annotations

import glob
import io
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from robo_rlft.errors import BundleError, ConfigError
from robo_rlft.export.golden import golden_inputs, residual_inputs
from robo_rlft.export.graph import CorrectedAction, DeterministicPolicy, ExportedModel, to_onnx
from robo_rlft.export.manifest import (
    GOLDEN_FILE,
    IMAGE_TOLERANCE,
    MANIFEST_FILE,
    MODEL_FILE,
    NORMALISED,
    RESIDUAL,
    RESIDUAL_FILE,
    TOLERANCE,
    Manifest,
    Normaliser,
    ResidualStage,
    Stage,
    sha256,
    to_yaml,
)
from robo_rlft.export.runtime import Controller
from robo_rlft.policies import Policy
from robo_rlft.policies.guidance import GuidedPolicy
from robo_rlft.policies.normaliser import Affine
from robo_rlft.policies.residual import ResidualPolicy
from robo_rlft.policies.search import SearchPolicy
from robo_rlft.spec import RobotSpec
from robo_rlft.training.compare import plain
from robo_rlft.training.config import Config
from robo_rlft.training.files import TEMPORARY, make_folder, sync_folder, write_synced, writing
from robo_rlft.training.paths import acting_path, run_folder
from robo_rlft.training.policies import adapted_policy
from robo_rlft.training.progress import summary_table


def export(config: Config) -> Path:
    """The verb: write the bundle of a run (`run.checkpoint`, else the recipe's fine-tuning run).

    Raises:
        CheckpointError: the run has no readable checkpoint.
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
    bundle = write_bundle(policy, target, source=source, overwrite=settings.overwrite)
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


_SOURCE = ("algorithm", "ema", "counters", "versions", "seed", "git")
"""What a bundle repeats of its checkpoint's description."""


def write_bundle(policy: Policy, target: Path | str, *, source: Mapping[str, Any], overwrite: bool = False) -> Path:
    """Write the bundle of a policy, whole or not at all.

    Everything is written beside the target and loaded from there by the runtime, which compares ONNX Runtime's
    actions with torch's; only then does the folder take its name.

    Args:
        policy: the policy; it stays as it is.
        target: the bundle's folder. One that holds the same bundle already is left alone.
        source: plain data about where the policy came from.
        overwrite: replace another bundle at `target`.

    Raises:
        ConfigError: the policy is a search.
        BundleError: ONNX Runtime and torch disagree, or `target` holds something else.
        RunError: the disk is full or the place cannot be written.
    """
    if isinstance(policy, SearchPolicy):
        raise ConfigError(
            "a search by a critic cannot be exported: export the policy alone with evaluate.candidates=0 "
            "evaluate.best_of=0"
        )
    folder = Path(target)
    files = _contents(policy, source)
    temporary = make_folder(folder.parent) / f"{TEMPORARY}{folder.name}-{uuid.uuid4().hex[:8]}"
    try:
        _write(temporary, files)
        Controller(temporary)
        _publish(temporary, folder, files, overwrite)
    finally:
        _clean(folder)
    return folder


def _contents(policy: Policy, source: Mapping[str, Any]) -> dict[str, bytes]:
    draft = _manifest(policy, source, {})
    if isinstance(policy, ResidualPolicy):
        planner, correction = DeterministicPolicy(policy.base, NORMALISED), CorrectedAction(policy)
        files = {MODEL_FILE: to_onnx(planner), RESIDUAL_FILE: to_onnx(correction)}
        pairs = _pairs(planner, golden_inputs(draft))
        pairs |= {f"{RESIDUAL}/{k}": v for k, v in _pairs(correction, residual_inputs(draft)).items()}
    else:
        module = DeterministicPolicy(policy)
        files, pairs = {MODEL_FILE: to_onnx(module)}, _pairs(module, golden_inputs(draft))
    buffer = io.BytesIO()
    np.savez(buffer, **pairs)  # pyright: ignore[reportArgumentType]
    files |= {GOLDEN_FILE: buffer.getvalue()}
    return {**files, MANIFEST_FILE: to_yaml(_manifest(policy, source, {k: sha256(v) for k, v in files.items()}))}


def _pairs(model: ExportedModel, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {**inputs, "action": model.answer(inputs)}


def _manifest(policy: Policy, source: Mapping[str, Any], files: Mapping[str, str]) -> Manifest:
    """What a bundle says: of a residual, the robot is its base's, in the task it was trained on."""
    if isinstance(policy, ResidualPolicy):
        base = policy.base
        task = {"task": policy.robot.task, "max_episode_steps": policy.robot.max_episode_steps}
        draft = _manifest(base, source, files)
        robot = replace(draft.robot, env_id=policy.robot.env_id, **plain(task))
        residual = ResidualStage(RESIDUAL_FILE, robot.rate_hz, tuple(base.vector_keys), policy.scale)
        return replace(draft, robot=robot, stage=replace(draft.stage, units=NORMALISED), residual=residual)
    config, robot = policy.config, _robot(policy)
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
        ),
        normalisation={
            **{key: _normaliser(policy.obs_affine(key), policy.obs_affine(key).clip) for key in policy.vector_keys},
            "action": _normaliser(policy.action_norm, clip=1.0),
        },
        source=plain(source),
        files=files,
        tolerance=IMAGE_TOLERANCE if policy.image_keys else TOLERANCE,
    )


def _robot(policy: Policy) -> RobotSpec:
    """The policy's robot with the observations it reads only: a robot need not offer those of the value function."""
    robot = RobotSpec.from_dict(plain(policy.robot.to_dict()))
    return replace(robot, observation={key: robot.observation[key] for key in policy.config.obs_keys})


def _normaliser(affine: Affine, clip: float) -> Normaliser:
    return Normaliser(tuple(affine.offset.tolist()), tuple(affine.scale.tolist()), clip)


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    with writing(folder):
        folder.mkdir()
        for name, data in files.items():
            write_synced(folder / name, data)
        sync_folder(folder)


def _publish(temporary: Path, target: Path, files: Mapping[str, bytes], overwrite: bool) -> None:
    if target.exists() and _same(target, files):
        return
    with writing(target):
        if _occupied(target):
            _refuse_unless(overwrite, target)
            _exchange(temporary, target)
        else:
            temporary.rename(target)
        sync_folder(target.parent)


def _exchange(temporary: Path, target: Path) -> None:
    """Put the new folder in the place of the old one, which comes back if that fails."""
    aside = temporary.with_name(f"{temporary.name}-old")
    target.rename(aside)
    try:
        temporary.rename(target)
    except BaseException:
        aside.rename(target)
        raise


def _clean(target: Path) -> None:
    """Remove temporary folders of this bundle, also those an earlier kill left behind."""
    for folder in target.parent.glob(f"{TEMPORARY}{glob.escape(target.name)}-*"):
        shutil.rmtree(folder, ignore_errors=True)


def _same(target: Path, files: Mapping[str, bytes]) -> bool:
    return all((target / name).is_file() and (target / name).read_bytes() == data for name, data in files.items())


def _occupied(target: Path) -> bool:
    return target.exists() and not (target.is_dir() and not any(target.iterdir()))


def _refuse_unless(overwrite: bool, target: Path) -> None:
    if not (target / MANIFEST_FILE).is_file():
        raise BundleError(f"{target} exists and is no controller bundle: choose another folder with export.dir=PATH")
    if not overwrite:
        raise BundleError(
            f"{target} holds another bundle: choose another folder with export.dir=PATH, or add export.overwrite=true"
        )
