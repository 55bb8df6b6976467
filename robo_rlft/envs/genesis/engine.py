"""The batched Genesis environment: any `GenesisTask`, N at a time.

env = GenesisEnv(panda.LIFT, num_envs=64, seed=0)
obs, _ = env.reset(seed=0)
result = env.step_chunk(chunks)                                  # [64, H, A], see `ChunkResult`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from robo_rlft.envs.base import BatchEnv, ChunkResult, EnvState, Obs, Record
from robo_rlft.envs.checks import checked_actions, checked_ids, checked_variants
from robo_rlft.envs.genesis import runtime
from robo_rlft.envs.genesis.arrays import Array, Arrays
from robo_rlft.envs.genesis.episodes import Episodes, merged_params
from robo_rlft.envs.genesis.pictures import Pictures
from robo_rlft.envs.genesis.randomisation import supported
from robo_rlft.envs.genesis.table import Groups, observation_specs
from robo_rlft.envs.genesis.task import GenesisTask
from robo_rlft.envs.genesis.world import World
from robo_rlft.envs.mujoco import generators
from robo_rlft.envs.randomise import RandomiseConfig, require_supported
from robo_rlft.errors import ConfigError
from robo_rlft.spec import ArraySpec, RobotSpec

FAMILY = "genesis"


class GenesisEnv(BatchEnv):
    """N environments of one task.

    The state is exact: Genesis' warm starts are part of it, and `set_state(get_state())` continues bit for bit.

    Args:
        task: the task's table.
        num_envs: environments, N.
        seed: environment i gets seed + i; None draws from the operating system.
        device: of the physics and of all tensors, cpu or cuda.
        threads: of the physics on the CPU; 0 takes one.
        dtype: of physics, observations and rewards.
        max_episode_steps: control steps before truncation; None takes the task's.
        randomise: how episodes differ from each other; None: not at all.
        torch_on_cpu: evaluate the terms with torch on the CPU too.
        params: the task's parameters by name, over its defaults.

    Attributes:
        arrays: the library that fields and terms use.

    Raises:
        ConfigError: an unknown parameter or one of the wrong type, a task whose terms have the wrong shape, or
            settings other than those Genesis runs with in this process.
    """

    fidelity = "exact"

    def __init__(
        self,
        task: GenesisTask,
        num_envs: int = 1,
        *,
        seed: int | None = None,
        device: str | torch.device = "cpu",
        threads: int = 0,
        dtype: torch.dtype = torch.float32,
        max_episode_steps: int | None = None,
        randomise: RandomiseConfig | None = None,
        torch_on_cpu: bool = False,
        **params: Any,
    ) -> None:
        if num_envs < 1:
            raise ConfigError(f"num_envs is {num_envs}: at least one environment is needed")
        self.task, self.params = task, merged_params(task, params)
        self.num_envs, self.device, self.dtype = num_envs, torch.device(device), dtype
        self.has_success, self.metrics = task.success is not None, tuple(task.metrics)
        self.variants = tuple(task.variants) or ("",)
        require_supported(randomise, supported(task), f"{FAMILY}:{task.id}")
        self.arrays = Arrays(self.device, dtype, torch_on_cpu)
        self._gs = runtime.start(runtime.settings_for(self.device, dtype, threads))
        limit = max_episode_steps or task.max_episode_steps
        draws = randomise or RandomiseConfig()
        self._episodes = Episodes(
            self._gs, task, self.params, num_envs, self.arrays, seed=seed, max_steps=limit, randomise=draws
        )
        self._episodes.begin()
        self._pictures: Pictures | None = None
        self.robot = self._describe(limit)
        self._bounds = [torch.tensor(b, dtype=dtype, device=self.device) for b in self._action_bounds()]
        self.set_spaces()

    @property
    def nan_resets(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Episodes ended by the NaN guard since the environment was made."""
        return self._episodes.nan_resets

    @property
    def world(self) -> World:
        """The physics: Genesis' scene and its live fields."""
        return self._episodes.world

    @property
    def instructions(self) -> list[str]:
        """See `BatchEnv.instructions`."""
        return [self.task.words] * self.num_envs

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Obs, dict[str, Any]]:
        """See `BatchEnv.reset`. The observations of environments that are not reset stay as they are."""
        ids = checked_ids((options or {}).get("ids"), self.num_envs)
        if seed is not None:
            generators.reseed(self._episodes.generators, seed, ids)
        ended = np.zeros(self.num_envs, bool)
        ended[ids] = True
        obs = self._tensors(self._episodes.begin_again(ended))
        return obs, {"success": self._tensor(self._episodes.success)}

    def step(
        self, actions: Float[Tensor, "env action"]
    ) -> tuple[Obs, Float[Tensor, " env"], Bool[Tensor, " env"], Bool[Tensor, " env"], dict[str, Any]]:
        """See `BatchEnv.step`. `info["final_obs"]` holds the observations before any reset, in every step."""
        result = self.step_chunk(actions.unsqueeze(1) if actions.ndim == 2 else actions)
        info = {"final_obs": result.final_obs, "_final_obs": result.done, "success": result.success}
        info |= {"metrics": result.metrics} if self.metrics else {}
        return result.obs, result.reward[:, 0], result.terminated, result.truncated, info

    def step_chunk(self, actions: Float[Tensor, "env chunk action"], record: Record = "last") -> ChunkResult:
        """See `BatchEnv.step_chunk`. An environment that ended holds its last targets until the chunk is over."""
        acts = self._checked(actions)
        episodes, arrays, xp = self._episodes, self.arrays, self.arrays.xp
        alive, length = arrays.full((self.num_envs,), True), arrays.full((self.num_envs,), 0)
        terminated, truncated = (arrays.full((self.num_envs,), False) for _ in range(2))
        rewards: list[Array] = []
        trace = [episodes.obs]
        for h in range(acts.shape[1]):
            # Asking a GPU whether anyone is left would make it wait; there the chunk runs to its end.
            everyone, over = (False, False) if self._on_gpu else (bool(alive.all()), not alive.any())
            if over:
                break
            step = episodes.advance(acts[:, h], None if everyone else alive)
            episodes.obs = step.obs if everyone else _where(xp, alive, step.obs, episodes.obs)
            rewards.append(xp.where(alive, step.reward, xp.zeros_like(step.reward)))
            terminated, truncated = terminated | (step.terminated & alive), truncated | (step.truncated & alive)
            length = length + alive
            alive = alive & ~(step.terminated | step.truncated)
            trace.append(episodes.obs)
        missing = acts.shape[1] - len(rewards)
        rewards += [xp.zeros_like(rewards[0])] * missing
        trace += trace[-1:] * missing
        final, success = self._tensors(episodes.obs), self._tensor(episodes.success)
        figures = {name: self._tensor(values) for name, values in episodes.figures.items()}
        obs = self._tensors(episodes.begin_again(arrays.host(terminated | truncated)))
        return ChunkResult(
            obs=obs,
            reward=arrays.tensor(xp.stack(rewards, 1)),
            terminated=arrays.tensor(terminated),
            truncated=arrays.tensor(truncated),
            length=arrays.tensor(length),
            final_obs=final,
            success=success,
            trace={k: arrays.tensor(xp.stack([o[k] for o in trace], 1)) for k in obs} if record == "all" else None,
            metrics=figures,
        )

    def get_state(self, ids: Sequence[int] | None = None) -> EnvState:
        """See `BatchEnv.get_state`. What an episode has drawn (masses, frictions, gains) is part of it."""
        return {k: np.array(v) for k, v in self._episodes.save(checked_ids(ids, self.num_envs)).items()}

    def set_state(self, state: EnvState, ids: Sequence[int] | None = None) -> Obs:
        """See `BatchEnv.set_state`.

        Raises:
            SpecError: rows are missing, or belong to another task.
        """
        self._episodes.load(state, checked_ids(ids, self.num_envs))
        return self._tensors(self._episodes.obs)

    @property
    def variant(self) -> Int[np.ndarray, " env"]:
        """See `BatchEnv.variant`."""
        return self._episodes.variant.copy()

    def set_variants(self, variants: Sequence[int], ids: Sequence[int] | None = None) -> None:
        """See `BatchEnv.set_variants`.

        Raises:
            SpecError: there is no such variant, or not one for each environment.
        """
        rows = checked_ids(ids, self.num_envs)
        chosen = checked_variants(variants, self.variants, rows)
        self._episodes.next_variant[rows] = chosen

    def reward_terms(self, actions: Float[Tensor, "env action"]) -> dict[str, Tensor]:
        """Each weighted reward term at the present state, [N], for reports."""
        action = self._checked(actions.unsqueeze(1))[:, 0]
        terms = self._episodes.table.reward_terms(self._episodes.now(), action)
        return {name: self._tensor(values) for name, values in terms.items()}

    def render(
        self, ids: Sequence[int] | None = None, camera: str | None = None, size: tuple[int, int] = (240, 320)
    ) -> np.ndarray:
        """Images of some environments (all by default), uint8 [n, height, width, 3].

        They are drawn in a scene of their own, built at the first call and at each other size.

        Raises:
            UserError: the camera is unknown, or this machine has no OpenGL driver; then it says what to install.
        """
        rows = checked_ids(ids, self.num_envs)
        if self._pictures is None or self._pictures.size != tuple(size):
            self._close_pictures()
            self._pictures = Pictures(self._gs, self.task, self.params, (size[0], size[1]))
        return self._pictures.draw(camera, rows, self._episodes.now(), self.arrays)

    def close_extras(self, **kwargs: Any) -> None:
        """Free the scenes; `close` calls it."""
        self._close_pictures()
        self._episodes.world.close()

    def _close_pictures(self) -> None:
        if self._pictures is not None:
            self._pictures.close()
            self._pictures = None

    @property
    def _on_gpu(self) -> bool:
        return self.device.type != "cpu"

    def _checked(self, actions: Tensor) -> Float[Array, "env chunk action"]:
        """Actions in the environment's library, clipped to their bounds."""
        steps = actions.shape[1] if actions.ndim == 3 else 1
        shape = (self.num_envs, max(steps, 1), len(self.task.action_names))
        fits = tuple(actions.shape) == shape and actions.is_floating_point()
        if not fits or not bool(actions.isfinite().all()):
            checked_actions(self.robot.env_id, self.robot.action, actions, shape)
        low, high = self._bounds
        values = actions.detach().to(self.device, self.dtype)
        return self.arrays.view(torch.minimum(torch.maximum(values, low), high))

    def _tensors(self, groups: Groups) -> Obs:
        return {name: self.arrays.tensor(values) for name, values in groups.items()}

    def _tensor(self, values: Array) -> Tensor:
        return self.arrays.tensor(self.arrays.copy(values))

    def _action_bounds(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        count = len(self.task.action_names)
        low, high = (np.broadcast_to(b, count).tolist() for b in (self.task.action_low, self.task.action_high))
        return tuple(low), tuple(high)

    def _describe(self, limit: int) -> RobotSpec:
        names, (low, high) = self.task.action_names, self._action_bounds()
        dtype = str(self.dtype).removeprefix("torch.")
        return RobotSpec(
            env_id=f"{FAMILY}:{self.task.id}",
            observation=observation_specs(self.task, dtype, self.params),
            action=ArraySpec((len(names),), dtype, names, low=low, high=high),
            rate_hz=1.0 / self.task.period_s,
            max_episode_steps=limit,
            task=dict(self.params),
        )


def _where(xp: Any, mask: Array, new: Groups, old: Groups) -> Groups:
    return {name: xp.where(mask[:, None], values, old[name]) for name, values in new.items()}
