"""A task of the Genesis engine as a table of pure functions over the batch.

Terms receive `xp` (numpy on the CPU, torch on a GPU), a `State` of batched arrays (environment first) and the task's
parameters, and return new arrays. They are those of `envs.mujoco.task`, so that one text serves both engines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

from robo_rlft.envs.mujoco.task import (
    Array,
    ConditionFn,
    ControlFn,
    Observation,
    ObservationFn,
    Params,
    Reward,
    State,
)

Entities = Mapping[str, Any]
"""Genesis entities by the name that fields begin with."""
SceneFn = Callable[[ModuleType, Any, Params], Entities]
"""(genesis, scene before its build, params) -> the entities that terms read, by name"""
PrepareFn = Callable[[Entities, Params], None]
"""(entities of the built scene, params): gains and limits"""
ResetFn = Callable[[np.random.Generator, Params], Mapping[str, np.ndarray]]
"""(one environment's generator, params of its variant) -> that environment's fields (`robot.qpos`, `robot.target`) and
task variables"""
DerivedFn = Callable[[Any, Mapping[str, Array], Params], Mapping[str, Array]]
"""(xp, fields, params) -> further fields, worked out once per control step"""


@dataclass(frozen=True)
class View:
    """A camera, looking from `eye` to `at` (m) with a vertical field of view in degrees."""

    eye: tuple[float, float, float]
    at: tuple[float, float, float]
    fov_deg: float = 40.0


@dataclass(frozen=True)
class Marker:
    """A ball that only cameras see, where `at` says: `(xp, state, params) -> [N, 3]`, m."""

    at: ObservationFn
    radius: float = 0.02
    colour: tuple[float, float, float] = (0.9, 0.2, 0.2)


@dataclass(frozen=True)
class GenesisTask:
    """One task. Fields of the entity called `robot` are, each with the environment first:

    `robot.qpos`, `robot.qvel`, `robot.torque` (applied by the controllers in the last physics step), `robot.target`
    (of the joints under position control, in the order of `targets`), `robot.pos`, `robot.quat` (of every link, world
    axes, w first), `robot.com_vel`, `robot.com_ang` (of every link, as carried along at the point `robot.com`),
    `robot.contact` (the net contact force on every link, N), and `robot.friction` (factor of every geom's friction).

    Attributes:
        id: the registered name without the family's.
        description: one line.
        scene: adds the entities.
        prepare: sets gains after the build.
        targets: per entity the joints under position control, in the order of `<entity>.target`.
        period_s: of a control step.
        substeps: physics steps in it.
        max_episode_steps: control steps before truncation.
        observations, rewards, terminated, success: as in `MujocoTask`.
        reset: draws one environment's start.
        control: maps an action to `<entity>.target` and task variables.
        derived: further fields.
        previous: fields whose values before the step terms read in `State.previous`.
        metrics: figures of an episode by name, [N] each.
        variants: ways to set up an episode by name, each with parameters over `params`, which `reset` reads.
        words: what every episode asks for.
        action_low, action_high, action_names: bounds (one value or one per entry) and names of the action.
        params: defaults of the task's parameters.
        views: cameras by name, the first is the default.
        floats: the entity whose base floats, if there is one: pushes push it and cameras move along with it.
        markers: balls that pictures show.
        options: further settings of Genesis' rigid solver.
    """

    id: str
    description: str
    scene: SceneFn
    prepare: PrepareFn
    targets: Mapping[str, tuple[str, ...]]
    period_s: float
    substeps: int
    max_episode_steps: int
    observations: tuple[Observation, ...]
    rewards: tuple[Reward, ...]
    reset: ResetFn
    control: ControlFn
    action_names: tuple[str, ...]
    terminated: ConditionFn | None = None
    success: ConditionFn | None = None
    derived: DerivedFn | None = None
    previous: tuple[str, ...] = ()
    metrics: Mapping[str, ConditionFn] = field(default_factory=dict)
    variants: Mapping[str, Params] = field(default_factory=dict)
    words: str = ""
    action_low: float | tuple[float, ...] = -1.0
    action_high: float | tuple[float, ...] = 1.0
    params: Params = field(default_factory=dict)
    views: Mapping[str, View] = field(default_factory=dict)
    floats: str = ""
    markers: tuple[Marker, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


__all__ = ["Array", "Entities", "GenesisTask", "Marker", "Observation", "Params", "Reward", "State", "View"]
