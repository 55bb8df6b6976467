"""Policies to and from checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from robo_rlft.errors import CheckpointError, ConfigError
from robo_rlft.policies import Policy, PolicyConfig
from robo_rlft.policies.chains import chain_type
from robo_rlft.policies.chunk_critic import ChunkCritic
from robo_rlft.policies.guidance import GuidedPolicy
from robo_rlft.policies.pairs import check_pair, same_units
from robo_rlft.policies.residual import ResidualPolicy, residual_robot
from robo_rlft.policies.search import SVDD, BestOfN, SearchPolicy
from robo_rlft.spec import RobotSpec
from robo_rlft.training.checkpoint import Checkpoint, Name, check_contradictions, describe, load_for
from robo_rlft.training.compare import plain
from robo_rlft.training.config import Config, EvaluateConfig
from robo_rlft.training.paths import SCRATCH, run_folder, source_path
from robo_rlft.training.run import read_config

CRITIC = "chunk_critic"
"""Part of a checkpoint's weights."""
FREE = ("policy.chain", "policy.execute")
"""Policy settings that fine-tuning may change: the network's weights serve every execution horizon and every chain of
one prediction (velocity, noise ...)."""
RESIDUAL = "residual"
"""Entry of a checkpoint's description that makes it a residual on the policy described there."""


def load_policy(path: Path | str, name: Name = "last") -> tuple[Policy, dict[str, Any]]:
    """Rebuild the policy of a run or checkpoint exactly as it was trained.

    Args:
        path: run folder, checkpoint folder or a file in one.
        name: `last` or `best`.

    Returns:
        The policy in evaluation mode on the CPU, and what its checkpoint says about itself.

    Raises:
        CheckpointError: no or a damaged checkpoint, or weights that do not fit its own description.
    """
    checkpoint = load_for(path, name)
    policy = _described(checkpoint)
    _load_weights(policy, checkpoint.weights["policy"], checkpoint, allow_missing=())
    return policy.eval(), checkpoint.meta


def start_policy(config: Config, path: Path | str, robot: RobotSpec) -> Policy:
    """A policy for fine-tuning: the checkpoint's network under the configuration's chain.

    Raises:
        CheckpointError: the configuration contradicts the checkpoint.
        SpecError: the environment does not offer what the policy reads.
    """
    checkpoint = load_for(path)
    if RESIDUAL in checkpoint.meta:
        raise CheckpointError(
            f"checkpoint {path} is a residual on a frozen policy, which `finetune` cannot train as one: start from its "
            "base, or clone what it does (collect.source) and start from that"
        )
    _check_prediction(_policy_config(checkpoint.meta["policy"]), config.policy, path)
    check_contradictions(checkpoint.meta, {"policy": _plain(config.policy)}, free=FREE, where=f"checkpoint {path}")
    checkpoint.robot.check(robot, f"checkpoint {path}", f"environment {robot.env_id}")
    policy = Policy(config.policy, robot)
    _load_weights(policy, checkpoint.weights["policy"], checkpoint, allow_missing=("chain.",))
    return policy


def residual_policy(config: Config, path: Path | str, robot: RobotSpec) -> ResidualPolicy:
    """A new residual, whose first actions are those of the checkpoint's policy, on that policy of any chain.

    Raises:
        ConfigError: no policy to correct, or one that is a residual itself.
        SpecError: the environment does not offer what the policy reads.
    """
    if str(path) == SCRATCH:
        raise ConfigError("residual.enabled=true needs a policy to correct: name a run with run.checkpoint, not none")
    base, _ = load_policy(path)
    if isinstance(base, ResidualPolicy):
        raise ConfigError(
            f"{path} is a residual, which cannot be the base of another: name its base, or clone it first"
        )
    base.robot.check(robot, f"checkpoint {path}", f"environment {robot.env_id}")
    return ResidualPolicy(config.residual.policy, base, residual_robot(robot, base), config.residual.scale)


def adapted_policy(config: Config, path: Path | str, name: Name = "last") -> tuple[Policy, dict[str, Any]]:
    """`load_policy`, then what `evaluate` asks for: other denoising steps, guidance beside its reference, a search.

    Raises:
        ConfigError: a policy that is no flow, or a critic of another policy.
        CheckpointError: there is no reference, or no critic.
    """
    settings = config.evaluate
    policy, meta = load_policy(path, name)
    if settings.steps:
        policy.chain.follow_in(settings.steps)
    if settings.candidates or settings.best_of:
        return searching(settings, policy, critic_for(policy, settings.critic or path)).eval(), meta
    if settings.guidance is None:
        return policy, meta
    reference, _ = load_policy(settings.reference or reference_path(path))
    if settings.steps:
        reference.chain.follow_in(settings.steps)
    return GuidedPolicy(policy, reference, settings.guidance).eval(), meta


def searching(settings: EvaluateConfig, policy: Policy, critic: ChunkCritic) -> SearchPolicy:
    """A policy whose chunks are chosen as `candidates`, `alpha` and `best_of` say."""
    if settings.candidates:
        return SVDD(policy, critic, settings.candidates, settings.alpha)
    return BestOfN(policy, critic, settings.best_of)


def critic_for(policy: Policy, path: Path | str) -> ChunkCritic:
    """The chunk critic of a run, to judge the actions of a policy.

    Raises:
        CheckpointError: the run has none.
        ConfigError: it belongs to a policy that sees or commands other things than this one.
    """
    checkpoint = load_for(path)
    if CRITIC not in checkpoint.weights:
        raise CheckpointError(
            f"{path} has no critic of chunks, which a search needs: learn one with robo-rlft finetune "
            "algorithm=chunk_critic, and name its run with evaluate.critic=RUN"
        )
    judged, _ = load_policy(path)
    names = ("the policy that acts", f"that of the critic in {path}")
    check_pair(policy, judged, ("obs_horizon", "obs_keys", "execute"), "search", names)
    if not same_units(policy, judged):
        raise ConfigError(
            f"search: the policy that acts and that of the critic in {path} normalise differently: the critic must be "
            "of this policy or of the one it was fine-tuned from"
        )
    critic = make_critic(judged, checkpoint.meta["critic"])
    critic.load_state_dict(checkpoint.weights[CRITIC])
    return critic


def make_critic(policy: Policy, settings: Mapping[str, Any]) -> ChunkCritic:
    """An untrained critic of a policy's chunks.

    Args:
        policy: its condition and its executed actions are what the critic reads.
        settings: `hidden`, `members` and `aggregate` of `ChunkCriticConfig`.
    """
    event = (policy.config.execute, policy.event[1])
    return ChunkCritic(policy.cond_width, event, settings["hidden"], settings["members"], settings["aggregate"])


def reference_path(path: Path | str) -> Path:
    """What a fine-tuning run began with, from its own settings.

    Raises:
        ConfigError: it began from random weights.
    """
    run = run_folder(Path(path))
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), read_config(run)))
    assert isinstance(config, Config)
    source = source_path(config)
    if str(source) == SCRATCH or source == run:
        raise ConfigError(f"{run} was not fine-tuned from another policy: name one with evaluate.reference=RUN")
    return source


def _check_prediction(saved: PolicyConfig, wanted: PolicyConfig, path: Path | str) -> None:
    """Raise `CheckpointError` unless both chains ask the network for the same thing."""
    had, needs = (chain_type(c.chain).prediction(c.chain) for c in (saved, wanted))
    if had != needs:
        raise CheckpointError(
            f"policy.chain.name={wanted.chain.name} needs a network that predicts {needs}, but checkpoint {path} was "
            f"trained as {saved.chain.name} and predicts {had}: choose a chain that fits, or pretrain again"
        )


def policy_meta(
    policy: Policy, *, algorithm: str, counters: dict[str, float], ema: bool, **more: Any
) -> dict[str, Any]:
    """The description that goes with a policy's weights into a checkpoint."""
    normaliser = {
        "observation": policy.config.obs_normaliser,
        "action": policy.config.action_normaliser,
        "action_offset": policy.action_norm.offset.tolist(),
        "action_scale": policy.action_norm.scale.tolist(),
    }
    if isinstance(policy, ResidualPolicy):
        more[RESIDUAL] = plain(policy.describe())
    return describe(
        algorithm=algorithm,
        robot=policy.robot,
        policy=policy.config,
        normaliser=normaliser,
        counters=counters,
        ema=ema,
        **more,
    )


def _described(checkpoint: Checkpoint) -> Policy:
    """The policy that a checkpoint says it holds, untrained."""
    config, residual = _policy_config(checkpoint.meta["policy"]), checkpoint.meta.get(RESIDUAL)
    if residual is None:
        return Policy(config, checkpoint.robot)
    base = Policy(_policy_config(residual["base"]["policy"]), RobotSpec.from_dict(residual["base"]["robot"]))
    return ResidualPolicy(config, base, checkpoint.robot, float(residual["scale"]))


def _policy_config(settings: Mapping[str, Any]) -> PolicyConfig:
    merged = OmegaConf.merge(OmegaConf.structured(PolicyConfig), settings)
    config = OmegaConf.to_object(merged)
    assert isinstance(config, PolicyConfig)
    return config


def _plain(config: PolicyConfig) -> dict[str, Any]:
    value = OmegaConf.to_container(OmegaConf.structured(config))
    assert isinstance(value, dict)
    return {str(k): v for k, v in value.items()}


def _load_weights(
    policy: Policy, weights: dict[str, Tensor], checkpoint: Checkpoint, allow_missing: tuple[str, ...]
) -> None:
    """Load strictly, but for parts the checkpoint's chain may lack or have beyond ours."""
    mine = policy.state_dict()
    free = {k for k in {*mine, *weights} if k.startswith(allow_missing)} if allow_missing else set()
    chosen = {k: v for k, v in weights.items() if k not in free or (k in mine and mine[k].shape == v.shape)}
    wrong = sorted(
        k for k in {*mine, *chosen} - free if k not in chosen or k not in mine or mine[k].shape != chosen[k].shape
    )
    if wrong:
        raise CheckpointError(f"{checkpoint.path}: weights '{wrong[0]}' do not fit the policy it describes")
    with torch.no_grad():
        for key, value in chosen.items():
            mine[key].copy_(value)
