"""Any `SingleEnv` as a `BatchEnv`."""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from robo_rlft.envs.base import BatchEnv, ChunkResult, EnvState, Fidelity, Obs, Record
from robo_rlft.envs.checks import checked_actions, checked_ids, checked_variants
from robo_rlft.envs.pool.crew import Description
from robo_rlft.envs.pool.hosts import Host, LocalHost, ProcessHost, WorkerDiedError
from robo_rlft.envs.pool.memory import Arena, Block, Layout
from robo_rlft.envs.pool.single import SingleFactory
from robo_rlft.errors import ConfigError, SpecError
from robo_rlft.spec import RobotSpec


class PoolEnv(BatchEnv):
    """N environments of a simulator that steps one at a time.

    A chunk is one message: each worker makes all steps and resets of its environments and leaves the results in shared
    memory. A worker that dies is named and replaced once, its episodes count as truncated; the second time is an error.

    Args:
        make: makes one environment; picklable.
        num_envs: environments, N.
        env_id: registered name.
        seed: environment i gets seed + i; None draws from the operating system.
        device: where returned tensors live.
        threads: processes at most; 0 takes one per core.
        dtype: of vectors and rewards.
        workers: processes; 0 stays in this one, None takes as many as cores (none for a single environment).
        one_per_process: the simulator allows one environment in a process; then each gets its own.
        cannot: see `BatchEnv`.
        preload: modules whose memory all workers share.

    Raises:
        ConfigError: no environments, or fewer workers than the simulator needs.
    """

    def __init__(
        self,
        make: SingleFactory,
        num_envs: int,
        *,
        env_id: str,
        seed: int | None = None,
        device: str | torch.device = "cpu",
        threads: int = 0,
        dtype: torch.dtype = torch.float32,
        workers: int | None = None,
        one_per_process: bool = False,
        cannot: Mapping[str, str] | None = None,
        preload: Sequence[str] = (),
    ) -> None:
        if num_envs < 1:
            raise ConfigError(f"num_envs is {num_envs}: at least one environment is needed")
        self.num_envs, self.device, self.dtype = num_envs, torch.device(device), dtype
        self.cannot = dict(cannot or {})
        count = _workers(num_envs, threads, workers, one_per_process)
        self._seeds = [None if seed is None else seed + i for i in range(num_envs)]
        self.hosts = _hosts(make, self._seeds, count, preload)
        self._arenas: dict[str, Arena] = {}
        # Also where the user forgets `close`, or making the environment fails below.
        self._finalizer = weakref.finalize(self, _let_go, self.hosts, self._arenas)
        self._adopt(self.hosts[0].description, env_id)
        self._shared = count > 0
        self._capacity, self._traced = 0, False
        self._arenas["episode"] = Arena(self._episode_layout(), self._shared)
        self._reserve(1, traced=False)
        self._words = [""] * num_envs
        self._begun = False
        self._chosen = np.zeros(num_envs, np.int64)

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Obs, dict[str, Any]]:
        """See `BatchEnv.reset`."""
        ids = checked_ids((options or {}).get("ids"), self.num_envs)
        if not self._begun:
            self._begun = True
            self._reset({i: None for i in range(self.num_envs) if i not in set(ids.tolist())})
        self._reset(_seeds_of(seed, ids))
        return self._obs("obs"), {"success": self._tensor("success")}

    def step(
        self, actions: Float[Tensor, "env action"]
    ) -> tuple[Obs, Float[Tensor, " env"], Bool[Tensor, " env"], Bool[Tensor, " env"], dict[str, Any]]:
        """See `BatchEnv.step`."""
        if actions.ndim != 2:
            raise SpecError(f"{self.robot.env_id} got actions of shape {tuple(actions.shape)}: expected 2 axes")
        result = self.step_chunk(actions.unsqueeze(1))
        info = {"final_obs": result.final_obs, "_final_obs": result.done, "success": result.success}
        return result.obs, result.reward[:, 0], result.terminated, result.truncated, info | {"metrics": result.metrics}

    def step_chunk(self, actions: Float[Tensor, "env chunk action"], record: Record = "last") -> ChunkResult:
        """See `BatchEnv.step_chunk`."""
        steps = actions.shape[1] if actions.ndim == 3 else 1
        values = checked_actions(
            self.robot.env_id, self.robot.action, actions, (self.num_envs, steps, *self.robot.action.shape)
        )
        if not self._begun:
            self.reset()
        self._reserve(steps, traced=record == "all")
        self._array("actions")[:, :steps] = values
        self._words = self._order("chunk", steps, record == "all", rescue=partial(self._cut_off, steps))
        return ChunkResult(
            obs=self._obs("obs"),
            reward=self._moved(self._array("reward")[:, :steps]).to(self.dtype),
            terminated=self._tensor("terminated"),
            truncated=self._tensor("truncated"),
            length=self._tensor("length"),
            final_obs=self._obs("final"),
            success=self._tensor("success"),
            trace=self._obs("trace", steps + 1) if record == "all" else None,
            metrics={name: self._moved(self._array("metrics")[:, i]) for i, name in enumerate(self.metrics)},
        )

    def get_state(self, ids: Sequence[int] | None = None) -> EnvState:
        """See `BatchEnv.get_state`."""
        if self.fidelity == "none":
            return super().get_state(ids)
        if not self._begun:
            self.reset()
        rows = checked_ids(ids, self.num_envs).tolist()
        frames = self._gather("save", rows)
        return {key: np.stack([frame[key] for frame in frames]) for key in frames[0]}

    def set_state(self, state: EnvState, ids: Sequence[int] | None = None) -> Obs:
        """See `BatchEnv.set_state`."""
        if self.fidelity == "none":
            return super().set_state(state, ids)
        if not self._begun:
            self.reset()
        rows = checked_ids(ids, self.num_envs).tolist()
        if any(len(values) != len(rows) for values in state.values()):
            raise SpecError(f"{self.robot.env_id} got states of other environments: expected {len(rows)} rows each")
        states = {row: {k: v[i] for k, v in state.items()} for i, row in enumerate(rows)}
        self._words = self._spread("load", states)
        return self._obs("obs")

    @property
    def fork_fidelity(self) -> Fidelity:
        """See `BatchEnv.fork_fidelity`."""
        alone = self._shared and len(self.hosts) == self.num_envs
        return "exact" if alone and self.hosts[0].description.survives_fork else self.fidelity

    def fork(self, row: int, ids: Sequence[int]) -> Obs:
        """See `BatchEnv.fork`. Copies processes where states do not come back exactly and the simulator allows it."""
        if self.fidelity == self.fork_fidelity:
            return super().fork(row, ids)
        if not self._begun:
            self.reset()
        leader = self.hosts[int(checked_ids([row], self.num_envs)[0])]
        for i in checked_ids(ids, self.num_envs).tolist():
            follower = self.hosts[i]
            if follower is leader:
                continue
            assert isinstance(leader, ProcessHost)
            assert isinstance(follower, ProcessHost)
            follower.succeed(leader)
            self._words[i] = self._words[row]
        return self._obs("obs")

    @property
    def nan_resets(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Episodes ended by the NaN guard since the environment was made."""
        return int(self._array("nan_resets").sum())

    @property
    def variant(self) -> Int[np.ndarray, " env"]:
        """See `BatchEnv.variant`."""
        return np.array(self._order("variants"), np.int64)

    def set_variants(self, variants: Sequence[int], ids: Sequence[int] | None = None) -> None:
        """See `BatchEnv.set_variants`.

        Raises:
            SpecError: there is no such variant.
        """
        rows = checked_ids(ids, self.num_envs)
        chosen = checked_variants(variants, self.variants, rows)
        self._spread("choose", dict(zip(rows.tolist(), chosen.tolist(), strict=True)))

    @property
    def instructions(self) -> list[str]:
        """See `BatchEnv.instructions`."""
        return list(self._words)

    def expert_actions(self) -> Float[Tensor, "env action"]:
        """What the simulator's own expert would do now; with `has_expert`."""
        actions = np.stack(self._order("expert"))
        return torch.from_numpy(actions).to(self.device, self.dtype)

    def render(
        self, ids: Sequence[int] | None = None, camera: str | None = None, size: tuple[int, int] = (240, 320)
    ) -> np.ndarray:
        """See `BatchEnv.render`."""
        return np.stack(self._gather("render", checked_ids(ids, self.num_envs).tolist(), camera, size))

    def close_extras(self, **kwargs: Any) -> None:
        """End all workers and give the memory back; `close` calls it."""
        self._finalizer()

    def _adopt(self, what: Description, env_id: str) -> None:
        self.robot: RobotSpec = replace(what.robot, env_id=env_id)
        self.fidelity, self.drift = what.fidelity, what.drift
        self.has_success, self.has_expert = what.has_success, what.has_expert
        self.metrics, self.variants = what.metrics, what.variants
        self.set_spaces()

    def _episode_layout(self) -> Layout:
        n = self.num_envs
        flags = {name: Block((n,), "bool") for name in ("terminated", "truncated", "success")}
        counts = {name: Block((n,), "int64") for name in ("length", "nan_resets")}
        seen = {
            f"{group}/{key}": Block((n, *spec.shape), spec.dtype)
            for group in ("obs", "final")
            for key, spec in self.robot.observation.items()
        }
        return {**flags, **counts, **seen, "metrics": Block((n, len(self.metrics)), "float64")}

    def _reserve(self, steps: int, traced: bool) -> None:
        """Make room for chunks of so many steps, and for all their observations where those are asked for."""
        if steps <= self._capacity and traced <= self._traced:
            return
        self._capacity, self._traced = max(steps, self._capacity), traced or self._traced
        n, length = self.num_envs, self._capacity
        layout = {
            "actions": Block((n, length, *self.robot.action.shape), "float64"),
            "reward": Block((n, length), "float64"),
        }
        if self._traced:
            for key, spec in self.robot.observation.items():
                layout[f"trace/{key}"] = Block((n, length + 1, *spec.shape), spec.dtype)
        before = self._arenas.pop("chunk", None)
        self._arenas["chunk"] = Arena(layout, self._shared)
        for host in self.hosts:
            with contextlib.suppress(WorkerDiedError):  # the order that follows notices, and knows what to do
                host.attach(list(self._arenas.values()))
        if before:
            before.close()

    def _reset(self, seeds: dict[int, int | None]) -> None:
        if seeds:
            self._words = self._spread("reset", seeds)

    def _order(self, order: str, *arguments: Any, rescue: Callable[[Host], None] | None = None) -> list[Any]:
        """The same order to every host; the results of all rows in order."""
        return self._talk(dict.fromkeys(range(len(self.hosts)), (order, *arguments)), rescue)

    def _spread(self, order: str, values: Mapping[int, Any]) -> list[Any]:
        """An order about some rows; the answers speak of every row."""
        parts = [{row: values[row] for row in host.rows if row in values} for host in self.hosts]
        return self._talk({i: (order, part) for i, part in enumerate(parts)}, None)

    def _gather(self, order: str, rows: Sequence[int], *arguments: Any) -> list[Any]:
        """One answer for each of some rows, in their order."""
        parts = [[row for row in host.rows if row in set(rows)] for host in self.hosts]
        answers = self._talk({i: (order, part, *arguments) for i, part in enumerate(parts) if part}, None)
        by_row = dict(zip([row for part in parts for row in part], answers, strict=True))
        return [by_row[row] for row in rows]

    def _talk(self, messages: Mapping[int, tuple[Any, ...]], rescue: Callable[[Host], None] | None) -> list[Any]:
        """Send to all, then listen to all, so that workers work side by side."""
        dead: dict[int, WorkerDiedError] = {}
        failed: Exception | None = None
        answers: dict[int, Any] = {}
        for i, message in messages.items():
            try:
                self.hosts[i].send(*message)
            except WorkerDiedError as error:
                dead[i] = error
        for i in messages.keys() - dead.keys():
            try:
                answers[i] = self.hosts[i].receive()
            except WorkerDiedError as error:
                dead[i] = error
            except Exception as error:  # the others' answers must leave their pipes all the same
                failed = failed or error
        for i, error in dead.items():
            answers[i] = self._replace(i, error, messages[i], rescue)
        if failed:
            raise failed
        return [entry for i in messages for entry in answers[i] or []]

    def _replace(
        self, index: int, error: WorkerDiedError, message: tuple[Any, ...], rescue: Callable[[Host], None] | None
    ) -> Any:
        """Start a dead worker's successor with new episodes; give it the order again where that makes sense."""
        host = self.hosts[index]
        assert isinstance(host, ProcessHost)
        fresh = np.random.SeedSequence([s or 0 for s in self._seeds] + [host.number]).generate_state(len(host.rows))
        host.restart([int(seed % 2**31) for seed in fresh], str(error))
        host.attach(list(self._arenas.values()))
        if rescue is None:
            host.send(*message)
            return host.receive()
        rescue(host)
        host.send("reset", dict.fromkeys(host.rows))
        return host.receive()

    def _cut_off(self, steps: int, host: Host) -> None:
        """The episodes of a dead worker: truncated where they last were, in a step without reward."""
        rows = host.rows
        self._array("reward")[rows, :steps] = 0.0
        self._array("terminated")[rows], self._array("truncated")[rows] = False, True
        self._array("success")[rows], self._array("length")[rows] = False, 1
        for key in self.robot.observation:
            last = self._array(f"obs/{key}")[rows]
            self._array(f"final/{key}")[rows] = last
            if self._traced:
                self._array(f"trace/{key}")[rows] = last[:, None]

    def _array(self, name: str) -> np.ndarray:
        arena = next(arena for arena in self._arenas.values() if name in arena.arrays)
        return arena.arrays[name]

    def _tensor(self, name: str) -> Tensor:
        return self._moved(self._array(name))

    def _moved(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.copy()).to(self.device)

    def _obs(self, group: str, length: int | None = None) -> Obs:
        arrays = {key: self._array(f"{group}/{key}") for key in self.robot.observation}
        return {key: self._moved(v if length is None else v[:, :length]) for key, v in arrays.items()}


def _workers(num_envs: int, threads: int, workers: int | None, one_per_process: bool) -> int:
    if one_per_process:
        if workers not in (None, num_envs):
            raise ConfigError(
                f"workers is {workers}: this simulator needs a process for each of {num_envs} environments"
            )
        return num_envs
    if workers is not None:
        return min(workers, num_envs)
    cores = threads or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if min(cores, num_envs) == 1 else min(cores, num_envs)


def _hosts(make: SingleFactory, seeds: Sequence[int | None], workers: int, preload: Sequence[str]) -> list[Host]:
    if not workers:
        return [LocalHost(make, range(len(seeds)), seeds)]
    shares = np.array_split(np.arange(len(seeds)), workers)
    hosts: list[ProcessHost] = []
    try:
        for number, rows in enumerate(shares):
            ids = rows.tolist()
            hosts.append(ProcessHost(number, make, ids, [seeds[i] for i in ids], preload))
        for host in hosts:
            host.ready()
    except BaseException:
        _let_go(hosts, {})
        raise
    return list(hosts)


def _seeds_of(seed: int | Sequence[int] | None, ids: Int[np.ndarray, " row"]) -> dict[int, int | None]:
    rows = ids.tolist()
    if seed is None:
        return dict.fromkeys(rows)
    if isinstance(seed, int | np.integer):
        return {row: int(seed) + row for row in rows}
    return {row: int(s) for row, s in zip(rows, seed, strict=True)}


def _let_go(hosts: Sequence[Host], arenas: dict[str, Arena]) -> None:
    for host in hosts:  # side by side: a process that was copied waits for its copies
        host.dismiss()
    for host in hosts:
        host.close()
    for arena in arenas.values():
        arena.close()
    arenas.clear()


__all__ = ["PoolEnv"]
