"""Who acts while demonstrations are recorded, and whose actions are written down: the sources of `collect`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from robo_rlft.envs import experts
from robo_rlft.envs.base import BatchEnv, ChunkResult, Obs
from robo_rlft.policies import Policy
from robo_rlft.policies.residual import ResidualPolicy
from robo_rlft.spec import POLICY_KEY
from robo_rlft.training.config import Config
from robo_rlft.training.plans import PREFIX, PlanSource
from robo_rlft.training.player import ChunkPlayer
from robo_rlft.training.policies import load_policy
from robo_rlft.training.rollout import History

Actions = Float[Tensor, "env steps action"]
EXPERT = "expert"
"""`collect.source=expert`: the task's scripted expert."""


class Source(Protocol):
    """Something that acts: chunks of one or more steps."""

    def start(self, obs: Obs, seeds: Sequence[int]) -> None:
        """All environments begin an episode, each from its own seed."""
        ...

    def act(self) -> tuple[Actions, Actions]:
        """What to execute in all environments and what to record of it, in the robot's units."""
        ...

    def push(self, result: ChunkResult) -> None:
        """Take in what happened."""
        ...


def make_source(config: Config, env: BatchEnv, seed: int) -> Source:
    """What `collect.source` names, or with `collect.actor` both of them.

    Args:
        config: `collect`.
        env: where it will act.
        seed: of everything it draws.

    Raises:
        CheckpointError, ConfigError, DataError, SpecError: see `load_policy`, `experts.make` and `PlanSource`; or a
            policy of another robot.
    """
    settings = config.collect
    if settings.actor:
        teacher, actor = (_single_steps(config, name, env, seed) for name in (settings.source, settings.actor))
        return LabellingSource(teacher, actor, settings.teacher_share, seed)
    if settings.source == EXPERT:
        return ExpertSource(env, seed)
    if settings.source.startswith(PREFIX):
        return PlanSource(env, settings.source.removeprefix(PREFIX))
    policy = _policy(config, settings.source, env)
    generator = torch.Generator(config.device).manual_seed(seed)
    if isinstance(policy, ResidualPolicy):
        return StepSource(policy, settings.deterministic, generator)
    return ChunkSource(policy, settings.deterministic, generator)


class ExpertSource:
    """A scripted expert, one step at a time."""

    def __init__(self, env: BatchEnv, seed: int) -> None:
        self.expert = experts.make(env, seed)
        self.obs: Obs = {}

    def start(self, obs: Obs, seeds: Sequence[int]) -> None:
        """See `Source`."""
        self.obs = obs
        self.expert.reset()

    def act(self) -> tuple[Actions, Actions]:
        """See `Source`."""
        action = self.expert.act(self.obs).unsqueeze(1)
        return action, action

    def push(self, result: ChunkResult) -> None:
        """See `Source`."""
        self.obs = result.obs
        ended = result.done.nonzero().flatten().tolist()
        if ended:
            self.expert.reset(ended)


class ChunkSource:
    """A trained policy, whole chunks at a time, with its exploration noise or without."""

    def __init__(self, policy: Policy, deterministic: bool, generator: torch.Generator) -> None:
        self.policy, self.generator = policy, generator
        self.deterministic = deterministic or not policy.chain.has_likelihood
        self.history = History(policy.config.obs_horizon, policy.config.obs_keys)

    def start(self, obs: Obs, seeds: Sequence[int]) -> None:
        """See `Source`."""
        self.history.start(obs)

    @torch.no_grad()
    def act(self) -> tuple[Actions, Actions]:
        """See `Source`."""
        chunk = self.policy.act(self.history.frames, self.generator, self.deterministic)
        action = chunk[:, : self.policy.config.execute]
        return action, action

    def push(self, result: ChunkResult) -> None:
        """See `Source`."""
        self.history.push(result)


class StepSource:
    """A trained policy one step at a time, each environment at its own place in its own chunk.

    A policy plays its deterministic chunks; a residual corrects each of their steps, with its exploration noise or
    without, and the whole action counts.
    """

    def __init__(self, policy: Policy, deterministic: bool, generator: torch.Generator) -> None:
        self.policy, self.deterministic, self.generator = policy, deterministic, generator
        self.player = ChunkPlayer.of(policy.base if isinstance(policy, ResidualPolicy) else policy)

    def start(self, obs: Obs, seeds: Sequence[int]) -> None:
        """See `Source`."""
        self.player.start(obs, seeds)

    @torch.no_grad()
    def act(self) -> tuple[Actions, Actions]:
        """See `Source`."""
        action = self._action().unsqueeze(1)
        return action, action

    def push(self, result: ChunkResult) -> None:
        """See `Source`."""
        self.player.advance(result)
        if bool(result.done.any()):
            self.player.restart(result.obs, result.done.cpu().numpy())

    def _action(self) -> Float[Tensor, "env action"]:
        policy, planned = self.policy, self.player.action
        if not isinstance(policy, ResidualPolicy):
            return policy.to_robot(planned)
        seen = policy.features(self.player.newest, planned, self.player.phase)
        residual = policy.act({POLICY_KEY: seen.unsqueeze(1)}, self.generator, self.deterministic)
        return policy.corrected(planned, residual[:, 0])


class LabellingSource:
    """DAgger (Ross et al. 2011): an actor visits states, a teacher says what it would have done in each.

    Args:
        teacher: its actions are recorded.
        actor: its actions are executed.
        share: probability that an episode is the teacher's own.
        seed: decides which.
    """

    def __init__(self, teacher: Source, actor: Source, share: float, seed: int) -> None:
        self.teacher, self.actor, self.share = teacher, actor, share
        self.rng = np.random.default_rng(seed)
        self.own = np.zeros(0, bool)
        """Episodes in which the teacher acts, [N]."""

    def start(self, obs: Obs, seeds: Sequence[int]) -> None:
        """See `Source`."""
        self.own = self.rng.random(len(seeds)) < self.share
        self.teacher.start(obs, seeds)
        self.actor.start(obs, seeds)

    def act(self) -> tuple[Actions, Actions]:
        """See `Source`."""
        label, action = self.teacher.act()[1], self.actor.act()[0]
        own = torch.from_numpy(self.own).to(label.device)[:, None, None]
        return torch.where(own, label, action), label

    def push(self, result: ChunkResult) -> None:
        """See `Source`."""
        self.teacher.push(result)
        self.actor.push(result)
        ended = result.done.cpu().numpy()
        self.own[ended] = self.rng.random(int(ended.sum())) < self.share


def _single_steps(config: Config, name: str, env: BatchEnv, seed: int) -> Source:
    if name == EXPERT:
        return ExpertSource(env, seed)
    generator = torch.Generator(config.device).manual_seed(seed)
    return StepSource(_policy(config, name, env), deterministic=True, generator=generator)


def _policy(config: Config, name: str, env: BatchEnv) -> Policy:
    policy, _ = load_policy(name)
    sees = policy.base if isinstance(policy, ResidualPolicy) else policy
    sees.robot.check(env.robot, f"policy {name}", f"environment {config.env.id}")
    return policy.to(config.device)
