"""The batched MuJoCo environment: any `MujocoTask`, N at a time, stepped in compiled code on a thread pool.

env = MujocoEnv(hopper.TASK, num_envs=64, seed=0)
obs, _ = env.reset(seed=0)
obs, reward, terminated, truncated, info = env.step(actions)     # [64, A]
result = env.step_chunk(chunks)                                  # [64, H, A], see `ChunkResult`
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from robo_rlft.envs.base import BatchEnv, ChunkResult, EnvState, Obs, Record
from robo_rlft.envs.checks import checked_ids, checked_variants
from robo_rlft.envs.images import ImagesConfig
from robo_rlft.envs.mujoco import generators
from robo_rlft.envs.mujoco.chunk import advance_chunk
from robo_rlft.envs.mujoco.episodes import Episodes, all_finite, merged_params, named_params
from robo_rlft.envs.mujoco.facts import action_meaning, joint_specs
from robo_rlft.envs.mujoco.observed import ImageObservations
from robo_rlft.envs.mujoco.randomised import supported
from robo_rlft.envs.mujoco.render import Cameras
from robo_rlft.envs.mujoco.simulation import Simulation
from robo_rlft.envs.mujoco.table import Groups, observation_specs
from robo_rlft.envs.mujoco.task import MujocoTask
from robo_rlft.envs.mujoco.variants import Variants
from robo_rlft.envs.randomise import LOOKS, RandomiseConfig, require_supported
from robo_rlft.errors import ConfigError, SpecError
from robo_rlft.spec import ArraySpec, RobotSpec


class MujocoEnv(BatchEnv):
    """N environments of one task.

    The state is exact: `set_state(get_state())` continues bit for bit, through later resets too.

    Args:
        task: the task's table.
        num_envs: environments, N.
        seed: environment i gets seed + i; None draws from the operating system.
        device: where returned tensors live; physics runs on the CPU.
        threads: of the simulation; 0 takes all CPUs.
        dtype: of observations and rewards.
        max_episode_steps: control steps before truncation; None takes the task's.
        capture_nan: folder to save the state and action to whenever an environment breaks.
        images: cameras to observe through; None gives no images.
        randomise: how episodes differ from each other; None: not at all.
        variants: ways to set up an episode by name, each with parameters over `params`; None takes the task's, an empty
            mapping gives one variant, `params` as they are.
        params: the task's parameters by name, over its defaults.

    Raises:
        ConfigError: an unknown parameter or one of the wrong type, a task whose terms have the wrong shape, or a
            randomisation that the task's model cannot have.
    """

    fidelity = "exact"

    def __init__(
        self,
        task: MujocoTask,
        num_envs: int = 1,
        *,
        seed: int | None = None,
        device: str | torch.device = "cpu",
        threads: int = 0,
        dtype: torch.dtype = torch.float32,
        max_episode_steps: int | None = None,
        capture_nan: str | Path | None = None,
        images: ImagesConfig | None = None,
        randomise: RandomiseConfig | None = None,
        variants: Mapping[str, Mapping[str, Any]] | None = None,
        **params: Any,
    ) -> None:
        if num_envs < 1:
            raise ConfigError(f"num_envs is {num_envs}: at least one environment is needed")
        self.task, self.params = task, merged_params(task, params)
        named = named_params(task, params, task.variants if variants is None else variants)
        self.variants = tuple(named) or ("",)
        self.has_success, self.metrics = task.success is not None, tuple(task.metrics)
        self.num_envs, self.device, self.dtype = num_envs, torch.device(device), dtype
        self._on_cpu = self.device.type == "cpu"
        self._tensor: Callable[[np.ndarray], Tensor] = torch.from_numpy if self._on_cpu else self._moved
        self._numpy_dtype = torch.empty(0, dtype=dtype).numpy().dtype
        self._episodes = Episodes(
            task,
            self.params,
            num_envs,
            seed=seed,
            threads=threads,
            dtype=self._numpy_dtype,
            max_steps=max_episode_steps or task.max_episode_steps,
            capture_nan=Path(capture_nan) if capture_nan else None,
            variants=Variants(task, named) if named else None,
            randomise=randomise,
        )
        images, randomise = images or ImagesConfig(), randomise or RandomiseConfig()
        seen = LOOKS if images.cameras else ()
        require_supported(randomise, (*supported(self.simulation.model), *seen), task.id)
        self._images = ImageObservations(self.simulation, images, randomise)
        self._images.begin(self._episodes.generators, np.arange(num_envs))
        self._episodes.begin()
        self._images.look(np.arange(num_envs))
        self.robot = self._describe()
        self._bounds: dict[Any, tuple[np.ndarray, np.ndarray]] = {}
        self._cameras = Cameras(task.cameras)
        self.set_spaces()

    @property
    def nan_resets(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Episodes ended by the NaN guard since the environment was made."""
        return self._episodes.nan_resets

    @property
    def simulation(self) -> Simulation:
        """The physics: live fields, the model, the batch."""
        return self._episodes.simulation

    @property
    def max_episode_steps(self) -> int:
        """Control steps before an episode is truncated."""
        return self._episodes.max_steps

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Obs, dict[str, Any]]:
        """See `BatchEnv.reset`. The observations of environments that are not reset stay as they are."""
        episodes = self._episodes
        ids = checked_ids((options or {}).get("ids"), self.num_envs)
        if seed is not None:
            generators.reseed(episodes.generators, seed, ids)
        ended = np.zeros(self.num_envs, bool)
        ended[ids] = True
        obs = self._tensors(self._begin_again(episodes.obs, ended))
        return obs, {"success": self._tensor(episodes.success.copy())}

    def step(
        self, actions: Float[Tensor, "env action"]
    ) -> tuple[Obs, Float[Tensor, " env"], Bool[Tensor, " env"], Bool[Tensor, " env"], dict[str, Any]]:
        """See `BatchEnv.step`. `info["final_obs"]` holds the observations before any reset, in every step."""
        episodes = self._episodes
        step = episodes.advance(self._checked(actions, (self.num_envs, len(self.task.action_names))))
        ended = step.terminated | step.truncated
        everyone = np.arange(self.num_envs)
        tensor, final = self._tensor, self._tensors({**step.obs, **self._images.look(everyone)})
        info = {"final_obs": final, "_final_obs": tensor(ended), "success": tensor(episodes.success.copy())}
        if self.metrics:
            info["metrics"] = self._tensors(episodes.metrics())
        obs = self._begin_again(step.obs, ended)
        reward = step.reward.astype(self._numpy_dtype, copy=False)
        outcome = tensor(reward), tensor(step.terminated), tensor(step.truncated)
        return self._tensors(obs) if ended.any() else final, *outcome, info

    def step_chunk(self, actions: Float[Tensor, "env chunk action"], record: Record = "last") -> ChunkResult:
        """See `BatchEnv.step_chunk`. In compiled code for tasks without `control` and metrics, if not fresh."""
        episodes = self._episodes
        steps = actions.shape[1] if actions.ndim == 3 else 1
        acts = self._checked(actions, (self.num_envs, steps, len(self.task.action_names)))
        images, watched = self._images, record == "all" and bool(self._images.present)
        chunk = advance_chunk(episodes, acts, record == "all", images.look if watched else None)
        success = episodes.success.copy()
        seen = images.present if watched else images.look(np.arange(self.num_envs))
        final, ended = self._tensors({**chunk.final, **seen}), chunk.terminated | chunk.truncated
        metrics = self._tensors(episodes.metrics()) if self.metrics else {}
        return ChunkResult(
            obs=self._tensors(self._begin_again(chunk.final, ended)) if ended.any() else final,
            reward=self._tensor(chunk.reward.astype(self._numpy_dtype)),
            terminated=self._tensor(chunk.terminated),
            truncated=self._tensor(chunk.truncated),
            length=self._tensor(chunk.length),
            final_obs=final,
            success=self._tensor(success),
            trace=None if chunk.trace is None else self._tensors(chunk.trace),
            metrics=metrics,
        )

    def get_state(self, ids: Sequence[int] | None = None) -> EnvState:
        """See `BatchEnv.get_state`. Per-environment model values (`randomise`) are part of it."""
        rows = checked_ids(ids, self.num_envs)
        return self._episodes.save(rows) | self._images.save(rows)

    def set_state(self, state: EnvState, ids: Sequence[int] | None = None) -> Obs:
        """See `BatchEnv.set_state`.

        Raises:
            SpecError: rows are missing, or belong to another task.
        """
        rows = checked_ids(ids, self.num_envs)
        self._episodes.load(state, rows)
        self._images.load(state, rows)
        return self._tensors({**self._episodes.obs, **self._images.present})

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
        self._episodes.next_variant[rows] = checked_variants(variants, self.variants, rows)

    def randomise(self, field: str, values: Any, ids: Sequence[int] | None = None) -> None:
        """Give environments (all by default) their own values of a model field, from the next step on.

        Where variants differ in that field, the next episode of another variant has its variant's values again.

        Args:
            field: a field of MjModel (`geom_friction`, `body_mass` ...) or of its options (`opt.gravity` ...).
            values: one row per environment, or anything that broadcasts to it.
            ids: environments.

        Raises:
            ConfigError: there is no such field, or the values do not fit it.
        """
        rows = checked_ids(ids, self.num_envs)
        try:
            self.simulation.randomise(field, np.asarray(values), rows)
        except ValueError as error:
            raise ConfigError(f"cannot randomise {field} of {self.task.id}: {error}") from error

    def reward_terms(self, actions: Float[Tensor, "env action"]) -> dict[str, Tensor]:
        """Each weighted reward term at the present state, for reports; terms of motion since the last step are 0."""
        action = self._checked(actions, (self.num_envs, len(self.task.action_names)))
        terms = self._episodes.table.reward_terms(self._episodes.now(), action)
        return {name: self._tensor(np.array(values, self._numpy_dtype)) for name, values in terms.items()}

    def render(
        self, ids: Sequence[int] | None = None, camera: str | None = None, size: tuple[int, int] = (240, 320)
    ) -> np.ndarray:
        """Images of some environments (all by default), uint8 [n, height, width, 3].

        Raises:
            UserError: the camera is unknown, or this machine has no OpenGL driver; then it says what to install.
        """
        simulation = self.simulation
        return self._cameras.render(
            simulation.batch, checked_ids(ids, self.num_envs), camera, size, bool(simulation.randomised)
        )

    def look_again(self) -> Obs:
        """The image observations of the present states, drawn anew: what a chunk of steps spends on them."""
        return self._tensors(self._images.look(np.arange(self.num_envs)))

    def close_extras(self, **kwargs: Any) -> None:
        """Free the renderers; `close` calls it."""
        self._cameras.close()
        self._images.close()

    def _begin_again(self, final: Groups, ended: Bool[np.ndarray, " env"]) -> Groups:
        """New episodes where `ended`; the observations to act on next, images included."""
        ids = np.flatnonzero(ended)
        self._images.begin(self._episodes.generators, ids)
        obs = self._episodes.begin_again(final, ended)
        return {**obs, **self._images.look(ids)}

    def _checked(self, actions: Tensor, shape: tuple[int, ...]) -> np.ndarray:
        """Actions as numpy in their own precision, clipped to the bounds."""
        if actions.shape != shape:
            raise SpecError(f"{self.task.id} got actions of shape {tuple(actions.shape)}: expected {shape}")
        values = (actions if self._on_cpu else actions.cpu()).detach().numpy()
        if not all_finite(values) and not np.isfinite(values).all():
            raise SpecError(self._not_finite(values))
        low, high = self._bounds_as(values.dtype)
        clipped = np.maximum(values, low)
        return np.minimum(clipped, high, out=clipped)

    def _not_finite(self, values: np.ndarray) -> str:
        at = tuple(np.argwhere(~np.isfinite(values))[0])
        when = f", step {at[1]} of the chunk" if len(at) == 3 else ""
        return (
            f"{self.task.id} got the action {values[at]} for entry {at[-1]} ('{self.task.action_names[at[-1]]}') of "
            f"environment {at[0]}{when}: actions must be finite, look for a NaN in the policy's output"
        )

    def _bounds_as(self, dtype: np.dtype[Any]) -> tuple[np.ndarray, np.ndarray]:
        if dtype not in self._bounds:
            if dtype.kind != "f":
                raise SpecError(f"{self.task.id} got actions of type {dtype}: expected floating point numbers")
            action = self.robot.action
            self._bounds[dtype] = np.array(action.low, dtype), np.array(action.high, dtype)
        return self._bounds[dtype]

    def _tensors(self, groups: Groups) -> Obs:
        return {name: self._tensor(values) for name, values in groups.items()}

    def _moved(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self.device)

    def _describe(self) -> RobotSpec:
        names = self.task.action_names
        low = np.broadcast_to(self.task.action_low, len(names)).tolist()
        high = np.broadcast_to(self.task.action_high, len(names)).tolist()
        dtype = self._numpy_dtype.name
        return RobotSpec(
            env_id=self.task.id,
            observation=observation_specs(self.task, dtype, self.params) | self._images.specs,
            action=ArraySpec((len(names),), dtype, names, low=tuple(low), high=tuple(high)),
            rate_hz=1.0 / (self.simulation.model.opt.timestep * self.task.frame_skip),
            max_episode_steps=self.max_episode_steps,
            task=dict(self.params),
            joints=joint_specs(self.simulation.model, self.params),
            action_meaning=action_meaning(self.task, self.simulation.model, self.params),
        )
