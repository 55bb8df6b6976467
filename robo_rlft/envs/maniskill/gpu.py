"""ManiSkill on PhysX for the GPU: N environments in one scene, stepped, observed and reset as tensors.

What differs from the CPU is declared: ManiSkill draws the starts of all environments that begin together from one
generator, so that an episode depends on who else begins with it; the solver's memory is not part of a state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from robo_rlft.envs.base import BatchEnv, ChunkResult, EnvState, Obs, Record
from robo_rlft.envs.checks import checked_ids
from robo_rlft.envs.maniskill import library, states
from robo_rlft.envs.maniskill.cameras import Photographer, Portrait, check_cameras
from robo_rlft.envs.maniskill.layout import to_action
from robo_rlft.envs.maniskill.single import DRIFT, Settings, describe, flag_names, vector_layouts
from robo_rlft.envs.mujoco import generators
from robo_rlft.errors import ConfigError, SpecError
from robo_rlft.spec import IMAGE_PREFIX

_BUILT_WITH = 2022
"""ManiSkill builds environment i with seed 2022 + i: sizes of objects that differ between environments come from it."""
_LARGEST_SEED = 2**31 - 1

CANNOT = {
    "same_seed_same_episode": "ManiSkill draws the starts of a whole batch from its first seed",
}


def open_gpu_env(
    settings: Settings, num_envs: int, *, seed: int | None, device: str | torch.device, dtype: torch.dtype
) -> ManiSkillGpuEnv:
    """N environments on the GPU.

    Args:
        settings: which task and how.
        num_envs: N, at least 2: a single environment is faster on the CPU.
        seed: environment i gets seed + i; None draws from the operating system.
        device: a CUDA device, where physics runs and the tensors live.
        dtype: of vectors and rewards.

    Raises:
        ConfigError: no GPU, no PhysX library for it, or what `library.build` raises.
    """
    where = torch.device(device)
    if where.type != "cuda" or num_envs < 2:
        raise ConfigError(
            f"sim_backend=physx_cuda with device={device} and num_envs={num_envs}: it needs device=cuda and at least "
            "two environments; use sim_backend=physx_cpu"
        )
    library.import_mani_skill()
    library.require_gpu_physics(str(device))
    index = f":{where.index}" if where.index is not None else ""
    drawing = f"sapien_cuda{index}" if settings.cameras else "none"
    height, width = settings.size
    sensors = {"sensor_configs": {"height": height, "width": width}} if settings.cameras else {}
    backends = {"sim_backend": f"physx_cuda{index}", "render_backend": drawing, "num_envs": num_envs}
    env = library.build(settings.task, settings.robot, settings.arguments() | backends | sensors)
    return ManiSkillGpuEnv(env, settings, seed=seed, dtype=dtype)


@dataclass
class _Progress:
    """What has happened in each environment within a chunk, before any reset."""

    reward: list[Tensor]
    terminated: Bool[Tensor, " env"]
    truncated: Bool[Tensor, " env"]
    length: Tensor
    final: Obs
    seen: list[Obs]

    @property
    def over(self) -> Bool[Tensor, " env"]:
        return self.terminated | self.truncated


class ManiSkillGpuEnv(BatchEnv):
    """N environments of one task in one of ManiSkill's batched scenes.

    An environment whose episode ends within a chunk is still stepped with the others, for the scene knows no halves;
    what it does there is not looked at, and it starts anew after the chunk.

    States hold poses, velocities and controller targets (fidelity `drift`). Tasks that give each environment objects
    of its own sizes keep them: such a state belongs to its environment.

    Args:
        env: ManiSkill's environment with num_envs > 1, obs_mode `state_dict`.
        settings: what it was built from.
        seed: environment i gets seed + i; None draws from the operating system.
        dtype: of vectors and rewards.
    """

    fidelity = "drift"
    drift = DRIFT
    cannot = CANNOT

    def __init__(self, env: Any, settings: Settings, *, seed: int | None, dtype: torch.dtype) -> None:
        self.env, self.settings, self.dtype = env, settings, dtype
        self.num_envs, self.device = env.num_envs, torch.device(env.device)
        obs, info = env.reset(seed=list(range(self.num_envs)))
        check_cameras(env, settings.cameras, settings.task)
        self._layouts = vector_layouts(env, obs, settings.state)
        self._photographer = Photographer(env, settings.cameras)
        self._portrait: Portrait | None = None
        self.robot = describe(env, settings, self._layouts)
        self.has_success = "success" in info
        self.metrics = tuple(name for name in flag_names(info) if name != "success")
        self._generators = generators.spawn(seed, self.num_envs)
        self._first = [None if seed is None else seed + i for i in range(self.num_envs)]
        self._low, self._high = (torch.tensor(end, device=self.device) for end in self._bounds())
        self._success = self._no()
        self._flags = torch.zeros(self.num_envs, len(self.metrics), dtype=torch.bool, device=self.device)
        self.set_spaces()
        self._obs = self._look(obs)
        self._obs = self._begin(np.arange(self.num_envs), self._take_seeds(np.arange(self.num_envs)))

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Obs, dict[str, Any]]:
        """See `BatchEnv.reset`."""
        ids = checked_ids((options or {}).get("ids"), self.num_envs)
        if seed is not None:
            generators.reseed(self._generators, seed, ids)
            given = [seed + int(i) for i in ids] if isinstance(seed, int | np.integer) else [int(s) for s in seed]
            for i, value in zip(ids, given, strict=True):
                self._first[i] = value
        self._obs = self._begin(ids, self._take_seeds(ids))
        return dict(self._obs), {"success": self._success.clone()}

    def step(
        self, actions: Float[Tensor, "env action"]
    ) -> tuple[Obs, Float[Tensor, " env"], Bool[Tensor, " env"], Bool[Tensor, " env"], dict[str, Any]]:
        """See `BatchEnv.step`."""
        result = self.step_chunk(actions.unsqueeze(1) if actions.ndim == 2 else actions[None])
        info = {"final_obs": result.final_obs, "_final_obs": result.done, "success": result.success}
        return result.obs, result.reward[:, 0], result.terminated, result.truncated, info | {"metrics": result.metrics}

    def step_chunk(self, actions: Float[Tensor, "env chunk action"], record: Record = "last") -> ChunkResult:
        """See `BatchEnv.step_chunk`."""
        acts = self._checked(actions)
        steps = acts.shape[1]
        chunk = _Progress([], self._no(), self._no(), self._no().long(), self._obs, [self._obs])
        for h in range(steps):
            if bool(chunk.over.all()):
                break
            self._advance(acts[:, h], chunk, look=record == "all" or h == steps - 1)
        return self._result(chunk, steps, record)

    def get_state(self, ids: Sequence[int] | None = None) -> EnvState:
        """See `BatchEnv.get_state`."""
        rows = checked_ids(ids, self.num_envs)
        at = self._index(rows)
        tensors = {"physics": states.rows(self.env)[at], "steps": self.env.elapsed_steps[at]}
        tensors |= {"success": self._success[at], "flags": self._flags[at]}
        first = [-1 if self._first[i] is None else self._first[i] for i in rows]
        own = {"generator": generators.pack([self._generators[i] for i in rows]), "given": np.array(first, np.int64)}
        return {name: values.cpu().numpy().copy() for name, values in tensors.items()} | own

    def set_state(self, state: EnvState, ids: Sequence[int] | None = None) -> Obs:
        """See `BatchEnv.set_state`.

        Raises:
            SpecError: the rows belong to another task, or are too few.
        """
        rows = checked_ids(ids, self.num_envs)
        at = self._index(rows)
        if any(len(values) != len(rows) for values in state.values()):
            raise SpecError(f"{self.robot.env_id} got states of other environments: expected {len(rows)} rows each")
        states.restore_rows(self.env, torch.from_numpy(state["physics"]).to(self.device), at)
        self.env.elapsed_steps[at] = torch.from_numpy(state["steps"]).to(self.env.elapsed_steps)
        self._success[at] = torch.from_numpy(state["success"]).to(self.device)
        self._flags[at] = torch.from_numpy(state["flags"]).to(self.device)
        generators.unpack(state["generator"], self._generators, rows)
        for i, given in zip(rows, state["given"].tolist(), strict=True):
            self._first[i] = None if given < 0 else given
        self._obs = self._merged(at, self._look(self.env.get_obs()), self._obs)
        return dict(self._obs)

    def render(
        self, ids: Sequence[int] | None = None, camera: str | None = None, size: tuple[int, int] = (240, 320)
    ) -> np.ndarray:
        """See `BatchEnv.render`. One environment after the other, in a scene on the CPU that takes on its state."""
        if self._portrait is None:
            self._portrait = Portrait(self.settings.task, self.settings.robot, self.settings.arguments())
        tree = self.env.get_state_dict()
        rows = checked_ids(ids, self.num_envs).tolist()
        return np.stack([self._portrait.take(states.row(tree, i), _BUILT_WITH + i, camera, size) for i in rows])

    def close_extras(self, **kwargs: Any) -> None:
        """Let go of the scenes; `close` calls it."""
        self.env.close()
        if self._portrait is not None:
            self._portrait.close()

    def _advance(self, action: Float[Tensor, "env action"], chunk: _Progress, look: bool) -> None:
        """One control step of all, of which only environments that have not ended count."""
        alive = ~chunk.over
        raw, reward, terminated, _, info = self.env.step(to_action(self.env, action))
        reward = reward.to(self.dtype)
        truncated = self.env.elapsed_steps >= self.robot.max_episode_steps
        vectors = self._vectors(raw)
        broken = alive & ~self._finite(vectors, reward)
        ended = alive & (truncated | broken | (terminated & (not self.settings.ignore_terminations)))
        # Images are dear: taken where somebody looks, and where an episode shows its last state.
        frame = vectors | self._images() if look or bool(ended.any()) else vectors | self._kept_images(chunk.final)
        chunk.final = self._merged(alive & ~broken, frame, chunk.final)
        chunk.reward.append(torch.where(alive & ~broken, reward, 0.0))
        chunk.terminated |= alive & ~broken & terminated.bool() & (not self.settings.ignore_terminations)
        chunk.truncated |= alive & (truncated | broken) & ~chunk.terminated
        chunk.length += alive
        chunk.seen.append(chunk.final)
        self.nan_resets += int(broken.sum())
        self._note(alive & ~broken, info)

    def _result(self, chunk: _Progress, steps: int, record: Record) -> ChunkResult:
        reward = chunk.reward + [torch.zeros_like(chunk.reward[0])] * (steps - len(chunk.reward))
        seen = chunk.seen + chunk.seen[-1:] * (steps + 1 - len(chunk.seen))
        success, flags = self._success.clone(), self._flags.clone()
        self._obs = chunk.final
        ended = torch.nonzero(chunk.over).flatten().cpu().numpy()
        if len(ended):
            self._obs = self._begin(ended, self._take_seeds(ended))
        return ChunkResult(
            obs=dict(self._obs),
            reward=torch.stack(reward, dim=1),
            terminated=chunk.terminated,
            truncated=chunk.truncated,
            length=chunk.length,
            final_obs=chunk.final,
            success=success,
            trace={k: torch.stack([obs[k] for obs in seen], dim=1) for k in seen[0]} if record == "all" else None,
            metrics={name: flags[:, i].double() for i, name in enumerate(self.metrics)},
        )

    def _begin(self, ids: np.ndarray, seeds: np.ndarray) -> Obs:
        """Start episodes; returns the observations of all, with those of the others as they were."""
        if not len(ids):
            return self._obs
        # ManiSkill takes one seed each and draws what it draws in torch from the first: that must be one of these.
        everyone = np.full(self.num_envs, seeds[0])
        everyone[ids] = seeds
        at = self._index(ids)
        raw, _ = self.env.reset(seed=everyone.tolist(), options={"env_idx": at})
        self._success[at], self._flags[at] = False, False
        fresh = self._look(raw)
        return self._merged(at, fresh, self._obs)

    def _take_seeds(self, ids: np.ndarray) -> np.ndarray:
        """The seed given for an environment's next episode, or the next of its generator."""
        given = [self._first[i] for i in ids]
        for i in ids:
            self._first[i] = None
        own = (self._generators[i] for i in ids)
        drawn = [g.integers(_LARGEST_SEED) if seed is None else seed for g, seed in zip(own, given, strict=True)]
        return np.array(drawn, np.int64)

    def _note(self, counted: Bool[Tensor, " env"], info: Mapping[str, Any]) -> None:
        if self.has_success:
            self._success = self._success | (info["success"].bool() & counted)
        if self.metrics:
            now = torch.stack([info[name].bool() for name in self.metrics], dim=1)
            self._flags = self._flags | (now & counted[:, None])

    def _look(self, raw: Mapping[str, Any]) -> Obs:
        return self._vectors(raw) | self._images()

    def _vectors(self, raw: Mapping[str, Any]) -> Obs:
        return {key: layout.rows(raw).to(self.device) for key, layout in self._layouts.items()}

    def _images(self) -> Obs:
        return {f"{IMAGE_PREFIX}{name}": rows.to(self.device) for name, rows in self._photographer.rows().items()}

    def _kept_images(self, obs: Obs) -> Obs:
        return {key: values for key, values in obs.items() if key.startswith(IMAGE_PREFIX)}

    def _merged(self, rows: Tensor, new: Obs, old: Obs) -> Obs:
        """`new` in some rows (a mask or indices), `old` in the others; neither is written to."""
        mask = rows if rows.dtype == torch.bool else self._no().index_fill(0, rows, True)
        return {k: torch.where(mask.reshape(-1, *[1] * (v.ndim - 1)), v, old[k]) for k, v in new.items()}

    def _checked(self, actions: Tensor) -> Float[Tensor, "env chunk action"]:
        """Finite, of the right shape, and within the bounds; on the GPU from end to end."""
        width = self.robot.action.shape[0]
        if actions.ndim != 3 or actions.shape[0] != self.num_envs or actions.shape[2] != width or not actions.shape[1]:
            raise SpecError(
                f"{self.robot.env_id} got actions of shape {tuple(actions.shape)}: expected "
                f"{self.num_envs} environments, at least one step, {width} entries"
            )
        if not actions.is_floating_point() or not bool(actions.isfinite().all()):
            raise SpecError(
                f"{self.robot.env_id} got actions that are not finite numbers: look for a NaN in the policy"
            )
        return actions.detach().to(self.device, torch.float32).clamp(self._low, self._high)

    def _finite(self, vectors: Obs, reward: Tensor) -> Bool[Tensor, " env"]:
        return torch.stack([v.isfinite().all(dim=1) for v in vectors.values()]).all(0) & reward.isfinite()

    def _bounds(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return self.robot.action.low, self.robot.action.high

    def _index(self, ids: np.ndarray) -> Tensor:
        return torch.from_numpy(np.asarray(ids, np.int64)).to(self.device)

    def _no(self) -> Bool[Tensor, " env"]:
        return torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)
