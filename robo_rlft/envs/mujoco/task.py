"""A task of the MuJoCo engine as a table of pure functions over the batch.

Every function below receives `xp` (numpy, torch or jax.numpy), a `State` of batched arrays (environment first) and
the task's parameters, and returns new arrays; none writes in place. The same text so serves every engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import mujoco
import numpy as np

from robo_rlft.spec import ActionMeaning, TermSpec

Array = Any
"""An array of the backend `xp`, environment first."""
Params = Mapping[str, Any]


@dataclass(slots=True)
class State:
    """What terms read: live fields of the simulation after the step, the ones before it, and the task's variables.

    Attributes:
        data: MjData fields by name (`qpos` [N, nq], `xpos` [N, nbody, 3], `sensordata` ...), those the task lists.
        previous: the fields of `MujocoTask.previous` as they were before the control step.
        variables: the task's own per-environment arrays (targets, the controller's set-points).
        memo: what terms have worked out from this very state, for others to use.
    """

    data: Mapping[str, Array]
    previous: Mapping[str, Array]
    variables: Mapping[str, Array]
    memo: dict[Any, Array] = field(default_factory=dict)


ObservationFn = Callable[[Any, State, Params], Array]
"""(xp, state, params) -> [N, width]"""
MetricFn = Callable[[Any, State, Params], Array]
"""(xp, state, params) -> [N], a figure of the episode so far"""
RewardFn = Callable[[Any, State, Array, Params], Array]
"""(xp, state, action, params) -> [N]"""
ConditionFn = Callable[[Any, State, Params], Array]
"""(xp, state, params) -> bool [N]"""
ControlFn = Callable[[Any, State, Array, Params], Mapping[str, Array]]
"""(xp, state before the step, action [N, A], params) -> new values of state fields (`ctrl`) and task variables."""
ResetFn = Callable[[np.random.Generator, mujoco.MjModel, Params], Mapping[str, np.ndarray]]
"""(one environment's generator, model, params) -> that environment's state fields and task variables."""
MeaningFn = Callable[[Params], ActionMeaning]
"""(params) -> what an action of the task does"""


@dataclass(frozen=True)
class Observation:
    """One named slice of an observation group."""

    name: str
    fn: ObservationFn
    names: tuple[str, ...]
    units: tuple[str, ...] = ()
    group: str = "policy"
    measured: bool = True
    """Sensors give it, so that it can be noisy; a command or the last action is known."""
    frame: str = ""
    """Frame of its vectors, where it has one."""
    joints: tuple[str, ...] = ()
    """Joints it reads, in order."""
    offset: str = ""
    """The parameter that is subtracted from what is read."""

    def term(self, params: Params) -> TermSpec:
        """What a controller needs to know to build it."""
        offset = tuple(float(x) for x in params[self.offset]) if self.offset else ()
        return TermSpec(self.name, len(self.names), offset=offset, frame=self.frame, joints=self.joints)


@dataclass(frozen=True)
class Reward:
    """One named, weighted part of the reward."""

    name: str
    fn: RewardFn
    weight: float = 1.0


@dataclass(frozen=True)
class MujocoTask:
    """One task. Copy a task's file to write your own; register it with the entry point group `robo_rlft.envs`.

    Attributes:
        id: the registered name.
        model: builds the model from the parameters.
        frame_skip: mj_step calls per control step.
        max_episode_steps: control steps before truncation.
        observations: in order, concatenated per group.
        rewards: summed with their weights.
        terminated: ends an episode; None never does. An `Outside` of `ranges` lets chunks stop in compiled code.
        success: marks the task as done (reported, and remembered until the episode ends); None if the task has none.
        metrics: figures of an episode by name, from its start to the present state (mean errors).
        reset: draws one environment's start.
        control: maps an action to `ctrl` and task variables; None copies the action to `ctrl`.
        fields: MjData fields the terms read.
        previous: fields whose values before the step the terms read.
        fresh: derived fields (xpos, site_xpos, sensordata ...) are recomputed at the state after the step; without it
            they lag it by one substep, as after mj_step.
        action_low, action_high: bounds, one value or one per entry. Actions are clipped to them.
        action_names: one name per entry.
        meaning: what an action does; None leaves it to the model, whose motors tell where `control` is None.
        params: defaults of the task's parameters; users override them by name.
        variants: named ways to set up an episode, each some of the parameters with other values (terrain levels,
            clearances); users may give others. Without any, every episode has the parameters as they are.
        cameras: names of the model's cameras, the first is the default view.
    """

    id: str
    model: Callable[[Params], mujoco.MjModel]
    frame_skip: int
    max_episode_steps: int
    observations: tuple[Observation, ...]
    rewards: tuple[Reward, ...]
    reset: ResetFn
    action_names: tuple[str, ...]
    terminated: ConditionFn | None = None
    success: ConditionFn | None = None
    metrics: Mapping[str, MetricFn] = field(default_factory=dict)
    control: ControlFn | None = None
    fields: tuple[str, ...] = ("qpos", "qvel")
    previous: tuple[str, ...] = ()
    fresh: bool = False
    action_low: float | tuple[float, ...] = -1.0
    action_high: float | tuple[float, ...] = 1.0
    params: Params = field(default_factory=dict)
    variants: Mapping[str, Params] = field(default_factory=dict)
    cameras: tuple[str, ...] = ()
    meaning: MeaningFn | None = None
    description: str = ""
