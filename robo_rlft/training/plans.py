"""Plans: episodes as seeds and actions, made elsewhere and played again here (`collect.source=plans:FILE`).

A motion planner may need an environment of its own (`tools/maniskill_planner`); what it leaves is small and names no
observation, so that one file serves every observation layout. An npz file holds `task`, `control_mode`, `seeds` [E],
`lengths` [E] and `actions` [sum of lengths, A].
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from robo_rlft.envs.base import BatchEnv, ChunkResult, Obs
from robo_rlft.errors import ConfigError, DataError
from robo_rlft.spec import CRITIC_KEY, POLICY_KEY

PREFIX = "plans:"
JOINT_TARGETS, JOINT_DELTAS = "pd_joint_pos", "pd_joint_delta_pos"
_KEYS = ("task", "control_mode", "seeds", "lengths", "actions")


@dataclass(frozen=True)
class Plans:
    """The content of a file.

    Attributes:
        task: the simulator's name of it.
        control_mode: what the actions mean.
        actions: of each seed's episode, [T, A].
    """

    task: str
    control_mode: str
    actions: dict[int, Float[np.ndarray, "step action"]]


def load_plans(path: str | Path) -> Plans:
    """Read a file of plans.

    Raises:
        DataError: it is not there, damaged, or something else.
    """
    if not Path(path).exists():
        raise DataError(f"{path} is not there: make it with tools/maniskill_planner/plan.py TASK --out {path}")
    try:
        with np.load(path, allow_pickle=False) as file:
            held = {key: file[key] for key in _KEYS if key in file}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is no file of plans ({error}): make it again with tools/maniskill_planner") from error
    if missing := [key for key in _KEYS if key not in held]:
        raise DataError(f"{path} is no file of plans: it lacks {', '.join(missing)}")
    lengths, actions = held["lengths"], held["actions"]
    if len(lengths) != len(held["seeds"]) or lengths.sum() != len(actions):
        raise DataError(
            f"{path} is damaged: {lengths.sum()} steps of {len(held['seeds'])} seeds in {len(actions)} rows"
        )
    parts = np.split(actions, np.cumsum(lengths)[:-1])
    by_seed = {int(seed): part for seed, part in zip(held["seeds"], parts, strict=True)}
    return Plans(str(held["task"]), str(held["control_mode"]), by_seed)


class PlanSource:
    """Plays plans, one step at a time; at the end of a plan its last target is held. A `Source`.

    Joint targets also serve an environment that takes joint deltas: each becomes the way that is left from where the
    joints are, which commands the very same targets as long as no step is longer than a delta may be.

    Args:
        env: where it will act.
        path: the file.

    Raises:
        ConfigError: the plans are of another task, of a control mode that does not fit, or longer than an episode.
        DataError: see `load_plans`.
    """

    def __init__(self, env: BatchEnv, path: str) -> None:
        self.env, self.plans = env, load_plans(path)
        self._check(path)
        self._mode = str(env.robot.task.get("control_mode"))
        self._targets: Float[np.ndarray, "env step action"] = np.zeros((env.num_envs, 1, 1))
        self._step, self._obs = 0, Obs()

    def waves(self) -> Iterator[list[int]]:
        """Seeds to begin with, as many as there are environments; the last ones repeat where plans run out."""
        seeds, num = list(self.plans.actions), self.env.num_envs
        for first in range(0, len(seeds), num):
            wave = seeds[first : first + num]
            yield wave + wave[-1:] * (num - len(wave))

    def start(self, obs: Obs, seeds: Sequence[int]) -> None:
        """See `Source`. The seeds must be of the plans."""
        plans = [self.plans.actions[seed] for seed in seeds]
        steps = self.env.robot.max_episode_steps
        held = [np.concatenate((plan, np.repeat(plan[-1:], steps - len(plan), axis=0))) for plan in plans]
        self._targets, self._step, self._obs = np.stack(held), 0, obs

    def act(self) -> tuple[Float[Tensor, "env 1 action"], Float[Tensor, "env 1 action"]]:
        """See `Source`."""
        targets = torch.from_numpy(self._targets[:, self._step]).to(self.env.device, torch.float32)
        action = targets if self._mode == self.plans.control_mode else self._deltas(targets)
        return action.unsqueeze(1), action.unsqueeze(1)

    def push(self, result: ChunkResult) -> None:
        """See `Source`."""
        self._step += 1
        self._obs = result.obs

    def _deltas(self, targets: Float[Tensor, "env action"]) -> Float[Tensor, "env action"]:
        """Targets of joints as the way left to them, in units of the action; other entries stay."""
        robot = self.env.robot
        group = CRITIC_KEY if CRITIC_KEY in robot.observation else POLICY_KEY
        columns = {name: i for i, name in enumerate(robot.observation[group].names)}
        action = targets.clone()
        for i, name in enumerate(robot.action.names):
            if (column := columns.get(f"qpos/{name}")) is not None:
                action[:, i] = (targets[:, i] - self._obs[group][:, column]) / robot.task["action_scale"][i]
        return action.clamp(-1.0, 1.0)

    def _check(self, path: str) -> None:
        robot, plans = self.env.robot, self.plans
        if robot.env_id.partition(":")[2] != plans.task:
            raise ConfigError(f"{path} holds plans of {plans.task}, env.id is {robot.env_id}: choose the same task")
        mode = robot.task.get("control_mode")
        if mode != plans.control_mode and (plans.control_mode, mode) != (JOINT_TARGETS, JOINT_DELTAS):
            raise ConfigError(
                f"{path} holds actions of {plans.control_mode}, env.params.control_mode is {mode}: plans of "
                f"{JOINT_TARGETS} play in that mode and in {JOINT_DELTAS}"
            )
        longest = max(map(len, plans.actions.values()), default=0)
        if longest > robot.max_episode_steps:
            raise ConfigError(
                f"{path} holds a plan of {longest} steps, an episode of {robot.env_id} has {robot.max_episode_steps}: "
                f"set env.params.max_episode_steps={longest}"
            )
