"""The environment of a residual policy: a frozen policy acts in it, and an action is a correction (ResiP).

To whatever trains or evaluates, this is one more environment of single steps; the one PPO needs nothing else.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from robo_rlft.envs.base import BatchEnv, ChunkResult, EnvState, Obs, Record
from robo_rlft.errors import ConfigError, SpecError
from robo_rlft.policies import Policy
from robo_rlft.policies.residual import ResidualPolicy, residual_robot
from robo_rlft.spec import CRITIC_KEY, POLICY_KEY, RobotSpec
from robo_rlft.training.player import ChunkPlayer

PLAYER = "player/"
"""Prefix of the player's rows in a state."""


class PlayedEnv(BatchEnv):
    """An environment in which a policy plays its chunks while actions say what is done with each of its steps.

    Subclasses give `observe` and `command`.

    Args:
        env: what is acted in.
        player: the policy.
        robot: what this environment offers.
    """

    def __init__(self, env: BatchEnv, player: ChunkPlayer, robot: RobotSpec) -> None:
        self.env, self.player, self.robot = env, player, robot
        self.num_envs, self.device = env.num_envs, env.device
        self.fidelity, self.drift, self.has_success = env.fidelity, env.drift, env.has_success
        self.metrics, self.variants, self.cannot = env.metrics, env.variants, env.cannot
        self._obs: Obs = {}
        self.set_spaces()

    @abstractmethod
    def observe(self, obs: Obs) -> Obs:
        """The observation groups of the present state.

        Args:
            obs: those of the environment itself.
        """

    @abstractmethod
    def command(self, action: Float[Tensor, "env action"]) -> Float[Tensor, "env action"]:
        """The action in the robot's units."""

    @property
    def nan_resets(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Those of the environment itself."""
        return self.env.nan_resets

    @property
    def variant(self) -> Int[np.ndarray, " env"]:
        """Those of the environment itself."""
        return self.env.variant

    def set_variants(self, variants: Sequence[int], ids: Sequence[int] | None = None) -> None:
        """See `BatchEnv.set_variants`."""
        self.env.set_variants(variants, ids)

    @property
    def instructions(self) -> list[str]:
        """Those of the environment itself."""
        return self.env.instructions

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Obs, dict[str, Any]]:
        """See `BatchEnv.reset`. The seeds are the policy's too: they decide the noise of its chunks."""
        given = (options or {}).get("ids")
        obs, info = self.env.reset(seed=seed, options=options)
        seeds = _seeds(seed, range(self.num_envs) if given is None else given)
        if given is None:
            self.player.start(obs, seeds if seeds is not None else _entropy(self.num_envs))
        else:
            rows = np.zeros(self.num_envs, bool)
            rows[list(given)] = True
            self.player.restart(obs, rows, seeds)
        self._obs = self.observe(obs)
        return self._obs, info

    def step(
        self, actions: Float[Tensor, "env action"]
    ) -> tuple[Obs, Float[Tensor, " env"], Bool[Tensor, " env"], Bool[Tensor, " env"], dict[str, Any]]:
        """See `BatchEnv.step`."""
        result = self.step_chunk(actions.unsqueeze(1))
        info = {"final_obs": result.final_obs, "_final_obs": result.done, "success": result.success}
        return result.obs, result.reward[:, 0], result.terminated, result.truncated, info

    def step_chunk(self, actions: Float[Tensor, "env chunk action"], record: Record = "last") -> ChunkResult:
        """See `BatchEnv.step_chunk`. A chunk is its steps: the policy inside is asked in between.

        Raises:
            SpecError: the wrong shape.
            ConfigError: more than one step, in an environment that cannot hold back those that ended.
        """
        self._check(actions)
        before, ticks, held = self._obs, [], []
        over = torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)
        for h in range(actions.shape[1]):
            ticks.append(self._tick(actions[:, h]))
            ended = (ticks[-1].done & ~over).nonzero().flatten().tolist()
            if ended and h + 1 < actions.shape[1]:
                # The rest of the chunk belongs to the others: these begin their new episode after it.
                held.append((self.get_state(ended), ended))
            over |= ticks[-1].done
        for state, ids in held:
            self.set_state(state, ids)
        return _joined(before, ticks, self._obs, record)

    def get_state(self, ids: Sequence[int] | None = None) -> EnvState:
        """See `BatchEnv.get_state`. Chunks, their places and their noise are part of it."""
        rows = range(self.num_envs) if ids is None else ids
        own = {f"{PLAYER}{name}": value for name, value in self.player.get_state(rows).items()}
        return {**self.env.get_state(ids), **own}

    def set_state(self, state: EnvState, ids: Sequence[int] | None = None) -> Obs:
        """See `BatchEnv.set_state`."""
        if not self._obs:
            self.reset()  # the player needs rows to put the state into
        own = {k.removeprefix(PLAYER): v for k, v in state.items() if k.startswith(PLAYER)}
        obs = self.env.set_state({k: v for k, v in state.items() if not k.startswith(PLAYER)}, ids)
        self.player.set_state(own, range(self.num_envs) if ids is None else ids)
        self._obs = self.observe(obs)
        return self._obs

    def render(
        self, ids: Sequence[int] | None = None, camera: str | None = None, size: tuple[int, int] = (240, 320)
    ) -> np.ndarray:
        """See `BatchEnv.render`."""
        return self.env.render(ids, camera, size)

    def close_extras(self, **kwargs: Any) -> None:
        """Close the environment itself; `close` calls it."""
        self.env.close(**kwargs)

    def _tick(self, action: Float[Tensor, "env action"]) -> ChunkResult:
        """One control step, resets included."""
        command = self.command(action).unsqueeze(1)
        result = self.env.step_chunk(command, "all" if self.player.history.needs_trace else "last")
        self.player.advance(result)
        final = self._obs = self.observe(result.final_obs)
        if bool(result.done.any()):
            self.player.restart(result.obs, result.done.cpu().numpy())
            self._obs = self.observe(result.obs)
        return replace(result, obs=self._obs, final_obs=final, trace=None)

    def _check(self, actions: Tensor) -> None:
        width = self.robot.action.shape[0]
        if actions.ndim != 3 or actions.shape[0] != self.num_envs or actions.shape[2] != width or not actions.shape[1]:
            raise SpecError(
                f"actions have shape {list(actions.shape)}: expected [{self.num_envs}, steps, {width}], one row per "
                "environment"
            )
        if actions.shape[1] > 1 and self.fidelity == "none":
            raise ConfigError(f"{self.robot.env_id} cannot save its state: correct it in single steps")


class ResidualEnv(PlayedEnv):
    """An environment whose actions are corrections of a frozen policy (see `ResidualPolicy`).

    Args:
        env: what is acted in.
        policy: the residual policy; its base acts.

    Raises:
        SpecError: the environment does not offer what the base reads.
    """

    def __init__(self, env: BatchEnv, policy: ResidualPolicy) -> None:
        policy.base.robot.check(env.robot, "the base policy", f"environment {env.robot.env_id}")
        super().__init__(env, ChunkPlayer.of(policy.base), residual_robot(env.robot, policy.base))
        self.policy = policy

    def observe(self, obs: Obs) -> Obs:
        """What the residual sees; for the value function the privileged group behind it, if there is one."""
        seen = self.policy.features(self.player.newest, self.player.action, self.player.phase)
        if CRITIC_KEY not in obs:
            return {POLICY_KEY: seen}
        return {POLICY_KEY: seen, CRITIC_KEY: torch.cat([seen, obs[CRITIC_KEY]], dim=-1)}

    def command(self, action: Float[Tensor, "env action"]) -> Float[Tensor, "env action"]:
        """The base's action with its correction."""
        return self.policy.corrected(self.player.action, action)


def acting_env(policy: Policy, env: BatchEnv) -> BatchEnv:
    """The environment as a policy meets it: with its base inside for a residual policy, else as it is."""
    return ResidualEnv(env, policy) if isinstance(policy, ResidualPolicy) else env


def _seeds(seed: int | Sequence[int] | None, ids: Sequence[int]) -> list[int] | None:
    """One per environment that is reset, as the environment itself takes them."""
    if seed is None:
        return None
    return [seed + int(i) for i in ids] if isinstance(seed, int | np.integer) else [int(s) for s in seed]


def _entropy(count: int) -> list[int]:
    return [int(word) for word in np.random.SeedSequence().generate_state(count)]


def _joined(before: Obs, ticks: list[ChunkResult], obs: Obs, record: Record) -> ChunkResult:
    """Single steps as one chunk: what comes after an episode's end does not count."""
    alive = torch.ones_like(ticks[0].terminated)
    final, trace, flags, metrics = before, [before], [], ticks[0].metrics
    for tick in ticks:
        final = {k: torch.where(_wide(alive, v), tick.final_obs[k], v) for k, v in final.items()}
        metrics = {k: torch.where(alive, tick.metrics[k], v) for k, v in metrics.items()}
        trace.append(final)
        flags.append(alive)
        alive = alive & ~tick.done
    counted = torch.stack(flags, dim=1)
    reward = torch.cat([tick.reward for tick in ticks], dim=1)

    def any_of(name: str) -> Tensor:
        return (torch.stack([getattr(tick, name) for tick in ticks], dim=1) & counted).any(1)

    return ChunkResult(
        obs=obs,
        reward=torch.where(counted, reward, 0.0),
        terminated=any_of("terminated"),
        truncated=any_of("truncated"),
        length=counted.sum(1),
        final_obs=final,
        success=any_of("success"),
        trace={k: torch.stack([frame[k] for frame in trace], dim=1) for k in before} if record == "all" else None,
        metrics=metrics,
    )


def _wide(mask: Tensor, like: Tensor) -> Tensor:
    return mask.reshape(-1, *[1] * (like.ndim - 1))
