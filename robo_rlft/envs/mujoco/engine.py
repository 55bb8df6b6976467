"""The batched MuJoCo environment: any `MujocoTask`, N at a time, stepped in compiled code on a thread pool.

env = MujocoEnv(hopper.TASK, num_envs=64, seed=0)
obs, _ = env.reset(seed=0)
obs, reward, terminated, truncated, info = env.step(actions)     # [64, A]
result = env.step_chunk(chunks)                                  # [64, H, A], see `ChunkResult`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium.spaces import Dict as DictSpace
from gymnasium.vector.utils import batch_space
from jaxtyping import Bool, Float
from torch import Tensor

from robo_rlft.envs.base import BatchEnv, ChunkResult, EnvState, Obs, Record, space_of
from robo_rlft.envs.mujoco import generators
from robo_rlft.envs.mujoco.render import Cameras
from robo_rlft.envs.mujoco.simulation import Simulation
from robo_rlft.envs.mujoco.table import Groups, Table, observation_specs
from robo_rlft.envs.mujoco.task import MujocoTask, Params, State
from robo_rlft.errors import ConfigError, SpecError, unknown_name
from robo_rlft.spec import ArraySpec, RobotSpec


class Transition(NamedTuple):
    """One control step of the batch in numpy, before any reset."""

    obs: Groups
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray


class MujocoEnv(BatchEnv):
    """N environments of one task.

    Args:
        task: the task's table.
        num_envs: environments, N.
        seed: environment i gets seed + i; None draws from the operating system.
        device: where returned tensors live; physics runs on the CPU.
        threads: of the simulation; 0 takes all CPUs.
        dtype: of observations and rewards.
        max_episode_steps: control steps before truncation; None takes the task's.
        params: the task's parameters by name, over its defaults.
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
        **params: Any,
    ) -> None:
        if num_envs < 1:
            raise ConfigError(f"num_envs is {num_envs}: at least one environment is needed")
        self.task, self.params = task, _merged(task, params)
        self.has_success = task.success is not None
        self.num_envs, self.device, self.dtype = num_envs, torch.device(device), dtype
        self.max_episode_steps = max_episode_steps or task.max_episode_steps
        model = task.model(self.params)
        self.robot = _robot(task, model.opt.timestep, self.params, self.max_episode_steps, dtype)
        self._set_spaces()
        self._table = Table(task, self.params, _numpy_dtype(dtype))
        fields = dict.fromkeys((*task.fields, *task.previous))
        self.simulation = Simulation(model, num_envs, threads, fields, task.frame_skip, task.fresh)
        self._low, self._high = _action_bounds(task)
        self._rng = generators.spawn(seed, num_envs)
        self._variables: dict[str, np.ndarray] = {}
        self._elapsed = np.zeros(num_envs, np.int64)
        self._success = np.zeros(num_envs, bool)
        self._cameras = Cameras(task.cameras)
        self._obs: Groups = {}
        self._restart(np.arange(num_envs))
        self._table.check(self._now(), np.zeros((num_envs, len(self._low))), num_envs)
        self._obs = self._observe()

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Obs, dict[str, Any]]:
        """See `BatchEnv.reset`."""
        ids = self._ids((options or {}).get("ids"))
        if seed is not None:
            generators.reseed(self._rng, seed, ids)
        self._restart(ids)
        self._obs = self._observe()
        return self._tensors(self._obs), {"success": self._tensor(self._success.copy())}

    def step(
        self, actions: Float[Tensor, "env action"]
    ) -> tuple[Obs, Float[Tensor, " env"], Bool[Tensor, " env"], Bool[Tensor, " env"], dict[str, Any]]:
        """See `BatchEnv.step`. `info["final_obs"]` is the observation before any reset, [N, ...] in every step."""
        done = self._advance(self._checked(actions, (self.num_envs, len(self._low))), None)
        success = self._success.copy()
        final = self._tensors(done.obs)
        ended = done.terminated | done.truncated
        obs = self._tensors(self._begin_again(done.obs, ended)) if ended.any() else final
        info = {"final_obs": final, "_final_obs": self._tensor(ended), "success": self._tensor(success)}
        return obs, self._reals(done.reward), self._tensor(done.terminated), self._tensor(done.truncated), info

    def step_chunk(self, actions: Float[Tensor, "env chunk action"], record: Record = "last") -> ChunkResult:
        """See `BatchEnv.step_chunk`."""
        chunk = actions.shape[1] if actions.ndim == 3 else 1
        acts = self._checked(actions, (self.num_envs, chunk, len(self._low)))
        return self._chunk_by_steps(acts, record)

    def _chunk_by_steps(self, acts: np.ndarray, record: Record) -> ChunkResult:
        n, chunk = acts.shape[:2]
        reward = np.zeros((n, chunk))
        terminated, truncated = np.zeros(n, bool), np.zeros(n, bool)
        length = np.zeros(n, np.int64)
        trace = [self._obs]
        final = self._obs
        for h in range(chunk):
            alive = ~(terminated | truncated)
            if not alive.any():
                trace += [final] * (chunk - h)
                break
            step = self._advance(acts[:, h], None if alive.all() else np.flatnonzero(alive))
            reward[:, h] = np.where(alive, step.reward, 0.0)
            terminated |= step.terminated & alive
            truncated |= step.truncated & alive
            length += alive
            final = {k: np.where(alive[:, None], v, final[k]) for k, v in step.obs.items()}
            trace.append(final)
        success = self._success.copy()
        ended = terminated | truncated
        obs = self._begin_again(final, ended) if ended.any() else final
        self._obs = obs
        return ChunkResult(
            obs=self._tensors(obs),
            reward=self._reals(reward),
            terminated=self._tensor(terminated),
            truncated=self._tensor(truncated),
            length=self._tensor(length),
            final_obs=self._tensors(final),
            success=self._tensor(success),
            trace={k: self._tensor(np.stack([t[k] for t in trace], 1)) for k in final} if record == "all" else None,
        )

    def get_state(self, ids: Sequence[int] | None = None) -> EnvState:
        """See `BatchEnv.get_state`."""
        rows = self._ids(ids)
        data = self.simulation.data
        state: EnvState = {"physics": self.simulation.batch.state[rows]}
        state |= {f"output/{name}": data[name][rows] for name in self.simulation.outputs}
        state |= {f"variable/{name}": values[rows] for name, values in self._variables.items()}
        state |= {"elapsed": self._elapsed[rows], "success": self._success[rows]}
        return state | {"generator": generators.pack([self._rng[i] for i in rows])}

    def set_state(self, state: EnvState, ids: Sequence[int] | None = None) -> Obs:
        """See `BatchEnv.set_state`."""
        rows = self._ids(ids)
        self.simulation.batch.state[rows] = state["physics"]
        self.simulation.forward(rows)
        self.simulation.batch.state[rows] = state["physics"]
        for name in self.simulation.outputs:
            self.simulation.overwrite(name, rows, state[f"output/{name}"])
        for name, values in self._variables.items():
            values[rows] = state[f"variable/{name}"]
        self._elapsed[rows], self._success[rows] = state["elapsed"], state["success"]
        generators.unpack(state["generator"], self._rng, rows)
        self._obs = self._observe()
        return self._tensors(self._obs)

    def render(
        self, ids: Sequence[int] | None = None, camera: str | None = None, size: tuple[int, int] = (240, 320)
    ) -> np.ndarray:
        """Images of some environments (all by default), uint8 [n, height, width, 3]."""
        return self._cameras.render(self.simulation.batch, self._ids(ids), camera, size)

    def close_extras(self, **kwargs: Any) -> None:
        """Free the renderers; `close` calls it."""
        self._cameras.close()

    def _advance(self, action: np.ndarray, ids: np.ndarray | None) -> Transition:
        """One control step of all environments, or of `ids` alone while the others keep still."""
        previous = {name: self.simulation.data[name].copy() for name in self.task.previous}
        self._command(action, ids)
        broken = self.simulation.step(ids)
        self._elapsed[slice(None) if ids is None else ids] += 1
        state = State(self.simulation.data, previous, self._variables)
        step = Transition(
            self._table.observe(state, self.num_envs),
            self._table.reward(state, action, self.num_envs),
            self._table.terminated(state, self.num_envs),
            self._elapsed >= self.max_episode_steps,
        )
        if self.task.success is not None:
            self._success |= self._table.success(state, self.num_envs)
        del broken
        return step

    def _command(self, action: np.ndarray, ids: np.ndarray | None) -> None:
        if self.task.control is None:
            self._write("ctrl", action, ids)
            return
        for name, values in self.task.control(np, self._now(), action, self.params).items():
            self._write(name, values, ids)

    def _write(self, name: str, values: np.ndarray, ids: np.ndarray | None) -> None:
        target = self._variables[name] if name in self._variables else self.simulation.batch.bind(name)
        if ids is None:
            target[...] = values
        else:
            target[ids] = values[ids]

    def _begin_again(self, final: Groups, ended: np.ndarray) -> Groups:
        ids = np.flatnonzero(ended)
        self._restart(ids)
        fresh = self._observe()
        return {k: np.where(ended[:, None], fresh[k], v) for k, v in final.items()}

    def _restart(self, ids: np.ndarray) -> None:
        draws = [self.task.reset(self._rng[i], self.simulation.model, self.params) for i in ids]
        rows = {name: np.stack([d[name] for d in draws]) for name in draws[0]} if draws else {}
        states = {k: v for k, v in rows.items() if self.simulation.is_state(k)}
        for name in rows.keys() - states.keys():
            values = rows[name]
            if name not in self._variables:
                self._variables[name] = np.zeros((self.num_envs, *values.shape[1:]), values.dtype)
            self._variables[name][ids] = values
        self.simulation.restart(ids, states)
        self._elapsed[ids], self._success[ids] = 0, False

    def _now(self) -> State:
        return State(self.simulation.data, self.simulation.data, self._variables)

    def _observe(self) -> Groups:
        return self._table.observe(self._now(), self.num_envs)

    def _checked(self, actions: Tensor, shape: tuple[int, ...]) -> np.ndarray:
        if tuple(actions.shape) != shape:
            raise SpecError(f"{self.task.id} expects actions of shape {shape}, got {tuple(actions.shape)}")
        values = actions.detach().cpu().numpy()
        if not np.isfinite(values).all():
            where = np.argwhere(~np.isfinite(values))[0]
            entry = self.task.action_names[where[-1]]
            raise SpecError(f"action '{entry}' of environment {where[0]} is {values[tuple(where)]}: actions are finite")
        return np.clip(values, self._low.astype(values.dtype), self._high.astype(values.dtype))

    def _ids(self, ids: Sequence[int] | None) -> np.ndarray:
        if ids is None:
            return np.arange(self.num_envs)
        return np.asarray(ids, np.int64)

    def _tensors(self, groups: Groups) -> Obs:
        return {k: self._tensor(v) for k, v in groups.items()}

    def _reals(self, values: np.ndarray) -> Tensor:
        return self._tensor(values.astype(_numpy_dtype(self.dtype)))

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self.device)

    def _set_spaces(self) -> None:
        self.single_observation_space = DictSpace({k: space_of(v) for k, v in self.robot.observation.items()})
        self.single_action_space = space_of(self.robot.action)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)


def _merged(task: MujocoTask, params: Mapping[str, Any]) -> Params:
    for name in params:
        if name not in task.params:
            raise ConfigError(unknown_name(f"parameter of {task.id}", name, task.params))
    return {**task.params, **params}


def _numpy_dtype(dtype: torch.dtype) -> np.dtype[Any]:
    return torch.empty(0, dtype=dtype).numpy().dtype


def _action_bounds(task: MujocoTask) -> tuple[np.ndarray, np.ndarray]:
    width = len(task.action_names)
    return np.broadcast_to(task.action_low, width).astype(float), np.broadcast_to(task.action_high, width).astype(float)


def _robot(task: MujocoTask, timestep: float, params: Params, max_episode_steps: int, dtype: torch.dtype) -> RobotSpec:
    low, high = _action_bounds(task)
    name = _numpy_dtype(dtype).name
    return RobotSpec(
        env_id=task.id,
        observation=observation_specs(task, name),
        action=ArraySpec((len(low),), name, task.action_names, low=tuple(low.tolist()), high=tuple(high.tolist())),
        rate_hz=1.0 / (timestep * task.frame_skip),
        max_episode_steps=max_episode_steps,
        task=dict(params),
    )
