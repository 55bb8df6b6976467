"""The MuJoCo tasks on JAX: any `MujocoTask`, thousands at a time, whole chunks in one compiled call.

env = MjxEnv(hopper.TASK, num_envs=4096, seed=0, device="cuda")
obs, _ = env.reset(seed=0)
result = env.step_chunk(chunks)                                  # [4096, H, A], see `ChunkResult`
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robo_rlft.envs.mjx.devices import Place, to_torch  # isort: skip - sets JAX up before it is imported

import jax
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from mujoco.batch import Batch
from torch import Tensor

from robo_rlft.envs.base import BatchEnv, ChunkResult, EnvState, Fidelity, Obs, Record
from robo_rlft.envs.checks import checked_actions, checked_ids, checked_variants
from robo_rlft.envs.mjx.episodes import Chunk, Episodes
from robo_rlft.envs.mjx.programs import Recipe, program_of
from robo_rlft.envs.mjx.starts import Starts
from robo_rlft.envs.mjx.states import loaded, saved
from robo_rlft.envs.mujoco.episodes import merged_params, named_params
from robo_rlft.envs.mujoco.facts import action_meaning, joint_specs
from robo_rlft.envs.mujoco.render import Cameras
from robo_rlft.envs.mujoco.table import Table, observation_specs
from robo_rlft.envs.mujoco.task import MujocoTask, State
from robo_rlft.envs.mujoco.variants import INDEX
from robo_rlft.errors import ConfigError
from robo_rlft.spec import ArraySpec, RobotSpec


class MjxEnv(BatchEnv):
    """N environments of one task. The first chunk of each length compiles, for tens of seconds.

    States are those of the CPU engine, and may be exchanged with it. Returned tensors share their memory with JAX:
    read them, do not write to them.

    Args:
        task: the task's table.
        num_envs: environments, N.
        seed: environment i gets seed + i; None draws from the operating system.
        device: `cpu` or `cuda`, of physics and tensors.
        threads: of the CPU for the physics of starts; 0 takes all.
        dtype: float32 or float64, of physics, observations and rewards.
        max_episode_steps: control steps before truncation; None takes the task's.
        capture_nan: folder to save the state and action to whenever an environment breaks; waits for every chunk.
        physics: options of the model to replace where MJX lacks the model's own, see `model.substituted`.
        variants: ways to set up an episode by name, each with parameters over `params`; None takes the task's, an empty
            mapping gives one variant, `params` as they are. Their models must be the same.
        params: the task's parameters by name, over its defaults.

    Raises:
        ConfigError: an unknown parameter or one of the wrong type, a task whose terms have the wrong shape, something
            that MJX lacks, or a device that JAX does not see.
    """

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
        physics: Mapping[str, Any] | None = None,
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
        self._place = Place(self.device, dtype)
        self.drift = 0.0 if self.device.type == "cpu" else math.inf  # nobody has measured it on a GPU
        steps = max_episode_steps or task.max_episode_steps
        self._program = program_of(Recipe(task, self.params, named, dict(physics or {}), steps, self._place))
        model, kinds = self._program.model, self._program.variants
        self._starts = Starts(
            task, self.params, model, num_envs, seed=seed, threads=threads, place=self._place, variants=kinds
        )
        self._check_terms()
        with self._place():
            self._episodes: Episodes = self._program.begin(self._starts.ring)
        self._starts.top_up(np.ones(num_envs, np.int64))
        self._capture_nan = Path(capture_nan) if capture_nan else None
        self._broken: list[Bool[jax.Array, " env"]] = []
        self._nan_resets = 0
        self._cameras, self._drawn = Cameras(task.cameras), Batch(model, 1, 1)
        self.robot = self._describe()
        self._low, self._high = (
            torch.tensor(bound, dtype=dtype, device=self.device)
            for bound in (self.robot.action.low, self.robot.action.high)
        )
        self.set_spaces()

    @property
    def fidelity(self) -> Fidelity:  # pyright: ignore[reportIncompatibleVariableOverride]
        """`exact` on the CPU, where it is tested; on a GPU sums may come in another order: `drift`."""
        return "exact" if self.device.type == "cpu" else "drift"

    @property
    def nan_resets(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Episodes ended by the NaN guard since the environment was made; waits for the device."""
        self._nan_resets += sum(int(broken.sum()) for broken in self._broken)
        self._broken.clear()
        return self._nan_resets

    @property
    def max_episode_steps(self) -> int:
        """Control steps before an episode is truncated."""
        return self._program.max_steps

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Obs, dict[str, Any]]:
        """See `BatchEnv.reset`. The observations of environments that are not reset stay as they are."""
        ids, used = checked_ids((options or {}).get("ids"), self.num_envs), self._used()
        if seed is not None:
            self._starts.reseed(seed, used, ids)
        chosen = np.zeros(self.num_envs, bool)
        chosen[ids] = True
        with self._place():
            self._episodes = self._program.restart(self._episodes, self._starts.ring, self._place.put(chosen))
        self._starts.top_up(used + chosen)
        return _tensors(self._episodes.obs), {"success": to_torch(self._episodes.success)}

    def step(
        self, actions: Float[Tensor, "env action"]
    ) -> tuple[Obs, Float[Tensor, " env"], Bool[Tensor, " env"], Bool[Tensor, " env"], dict[str, Any]]:
        """See `BatchEnv.step`: a chunk of one. `info["final_obs"]` holds the observations before any reset."""
        commands = self._check(actions, (self.num_envs, self.robot.action.shape[0]))
        chunk = self._play(commands[:, None], "last")
        info = {"final_obs": chunk.final_obs, "_final_obs": chunk.done, "success": chunk.success}
        if self.metrics:
            info["metrics"] = chunk.metrics
        return chunk.obs, chunk.reward[:, 0], chunk.terminated, chunk.truncated, info

    def step_chunk(self, actions: Float[Tensor, "env chunk action"], record: Record = "last") -> ChunkResult:
        """See `BatchEnv.step_chunk`. One compiled call; it is on its way when this returns, tensors wait for it."""
        steps = actions.shape[1] if actions.ndim == 3 else 1
        return self._play(self._check(actions, (self.num_envs, steps, self.robot.action.shape[0])), record)

    def get_state(self, ids: Sequence[int] | None = None) -> EnvState:
        """See `BatchEnv.get_state`. The rows are those of the CPU engine on the same task."""
        rows = checked_ids(ids, self.num_envs)
        return saved(self._episodes, self._starts, rows)

    def set_state(self, state: EnvState, ids: Sequence[int] | None = None) -> Obs:
        """See `BatchEnv.set_state`. Rows saved by the CPU engine are rounded to this environment's precision.

        Raises:
            SpecError: rows are missing, or belong to another task.
        """
        rows = checked_ids(ids, self.num_envs)
        with self._place():
            episodes = loaded(self.task.id, self._episodes, self._starts, state, rows, self._place)
            self._episodes = episodes._replace(obs=self._program.observe(episodes))
        return _tensors(self._episodes.obs)

    @property
    def variant(self) -> Int[np.ndarray, " env"]:
        """See `BatchEnv.variant`."""
        present = self._episodes.variables.get(INDEX)
        return np.zeros(self.num_envs, np.int64) if present is None else np.array(present, np.int64)

    def set_variants(self, variants: Sequence[int], ids: Sequence[int] | None = None) -> None:
        """See `BatchEnv.set_variants`.

        Raises:
            SpecError: there is no such variant, or not one for each environment.
        """
        rows = checked_ids(ids, self.num_envs)
        chosen = checked_variants(variants, self.variants, rows)
        if len(self.variants) > 1:
            self._starts.choose(chosen, self._used(), rows)

    def render(
        self, ids: Sequence[int] | None = None, camera: str | None = None, size: tuple[int, int] = (240, 320)
    ) -> np.ndarray:
        """Images of some environments (all by default), uint8 [n, height, width, 3], drawn by MuJoCo on the CPU.

        Raises:
            UserError: the camera is unknown, or this machine has no OpenGL driver; then it says what to install.
        """
        states = np.asarray(self._episodes.rows, np.float64)[checked_ids(ids, self.num_envs)]
        return np.concatenate([self._drawn_at(state, camera, size) for state in states])

    def close_extras(self, **kwargs: Any) -> None:
        """Free the renderers; `close` calls it."""
        self._cameras.close()

    def _play(self, commands: Float[Tensor, "env chunk action"], record: Record) -> ChunkResult:
        before = self._episodes
        with self._place():
            actions, steps = self._place.from_torch(commands), np.int32(commands.shape[1])
            self._episodes, chunk = self._program.chunk(
                before, self._starts.ring, actions, steps, traced=record == "all"
            )
        # The device is at work on this chunk now, and what the last one used up is drawn beside it.
        self._starts.top_up(np.asarray(before.used))
        self._guard(chunk)
        return ChunkResult(
            obs=_tensors(chunk.obs),
            reward=to_torch(chunk.reward),
            terminated=to_torch(chunk.terminated),
            truncated=to_torch(chunk.truncated),
            length=to_torch(chunk.length).long(),
            final_obs=_tensors(chunk.final),
            success=to_torch(chunk.success),
            trace=None if chunk.trace is None else _tensors(chunk.trace),
            metrics=_tensors(chunk.metrics),
        )

    def _check(self, actions: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Actions of this environment's own: finite, clipped to their bounds, on its device and in its precision."""
        fits = tuple(actions.shape) == shape and actions.is_floating_point()
        if not fits or not bool(actions.isfinite().all()):
            checked_actions(self.robot.env_id, self.robot.action, actions, shape)
        return torch.clamp(actions.detach().to(self.device, self.dtype), self._low, self._high)

    def _guard(self, chunk: Chunk) -> None:
        """Count broken environments when somebody asks, or look at once where they are captured."""
        self._broken.append(chunk.broken)
        if len(self._broken) >= 64 or self._capture_nan is not None:
            number, now = self._nan_resets, self.nan_resets
            if now > number and self._capture_nan is not None:
                self._capture(self._capture_nan / f"{self.task.id}-{number}.npz", chunk)

    def _capture(self, path: Path, chunk: Chunk) -> None:
        ids = np.flatnonzero(np.asarray(chunk.broken))
        path.parent.mkdir(parents=True, exist_ok=True)
        at = {"physics": np.asarray(chunk.at_break, np.float64)[ids], "action": np.asarray(chunk.commanded)[ids]}
        np.savez(path, ids=ids, elapsed=np.asarray(chunk.elapsed)[ids], **at)

    def _used(self) -> Int[np.ndarray, " env"]:
        return np.array(self._episodes.used, np.int64)

    def _drawn_at(self, state: np.ndarray, camera: str | None, size: tuple[int, int]) -> np.ndarray:
        self._drawn.state[0] = state
        return self._cameras.render(self._drawn, np.zeros(1, np.int64), camera, size)

    def _check_terms(self) -> None:
        """Call every term once in numpy on drawn starts, whose errors name the term."""
        simulation, ring = self._starts.simulation, self._starts.ring
        count = simulation.num
        variables = {name: np.asarray(values)[:count, 0] for name, values in ring.variables.items()}
        state = State(simulation.data, simulation.data, variables)
        table = Table(self.task, self.params, self._place.dtype, self._program.variants)
        table.check(state, np.zeros((count, len(self.task.action_names))), count)

    def _describe(self) -> RobotSpec:
        names, dtype = self.task.action_names, self._place.dtype.name
        low = np.broadcast_to(self.task.action_low, len(names)).tolist()
        high = np.broadcast_to(self.task.action_high, len(names)).tolist()
        return RobotSpec(
            env_id=f"mjx:{self.task.id}",
            observation=observation_specs(self.task, dtype, self.params),
            action=ArraySpec((len(names),), dtype, names, low=tuple(low), high=tuple(high)),
            rate_hz=1.0 / (self._program.model.opt.timestep * self.task.frame_skip),
            max_episode_steps=self.max_episode_steps,
            task=dict(self.params),
            joints=joint_specs(self._program.model, self.params),
            action_meaning=action_meaning(self.task, self._program.model, self.params),
        )


def _tensors(groups: Mapping[str, jax.Array]) -> Obs:
    return {name: to_torch(values) for name, values in groups.items()}
