"""Velocity tracking on MuJoCo: its state as a `View` of `envs.legged`, and that package's tables as a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

from robo_rlft.envs.legged import memory
from robo_rlft.envs.legged.robots import LeggedRobot
from robo_rlft.envs.legged.sight import (
    EPISODE_S,
    START_PARAMS,
    TOUCH_N,
    GroundFn,
    Sight,
    below_and_around,
    draw_start,
)
from robo_rlft.envs.legged.tables import PERIOD_S, Observed, Paid, offsets_from_default, task_params
from robo_rlft.envs.legged.view import View, as_number, into_frame, joint_targets, projected_gravity
from robo_rlft.envs.mujoco.task import Array, MujocoTask, Observation, Params, Reward, State

FRAME_SKIP = 4
GROUND = 0
"""The ground is a model's first geom; its friction counts for all that touches it."""
_QPOS, _QVEL = 7, 6
"""Entries of the free joint in qpos and qvel."""


def velocity_task(
    task_id: str,
    description: str,
    robot: LeggedRobot,
    model: Callable[[Params], mujoco.MjModel],
    observations: tuple[Observed, ...],
    rewards: tuple[Paid, ...],
    *,
    ground: GroundFn | None = None,
    variants: Mapping[str, Params] | None = None,
    params: Mapping[str, Any] | None = None,
) -> MujocoTask:
    """The task's table.

    Args:
        task_id: the registered name.
        description: one line.
        robot: joints, gains, default pose.
        model: builds the model; its actuators and hinge joints stand in the robot's order.
        observations: of `legged.tables`.
        rewards: of `legged.tables`.
        ground: the terrain, None on a plane.
        variants: kinds of ground an episode can start on, as the terrain's tiles.
        params: the task's own parameters over those of the tables.
    """
    sight = _Sight(len(robot.feet), ground)
    return MujocoTask(
        id=task_id,
        description=description,
        model=model,
        frame_skip=FRAME_SKIP,
        max_episode_steps=round(EPISODE_S / PERIOD_S),
        observations=tuple(
            Observation(
                o.name, sight.observation(o), o.names, o.units, o.group, o.measured, o.frame, o.joints, o.offset
            )
            for o in observations
        ),
        rewards=tuple(Reward(r.name, sight.reward(r), r.weight) for r in rewards),
        terminated=sight.fallen,
        success=sight.tracked,
        metrics={"velocity_error": sight.velocity_error, "yaw_error": sight.yaw_error},
        reset=_Start(robot, ground),
        control=sight.control,
        action_names=robot.joints,
        action_low=-robot.action_bound,
        action_high=robot.action_bound,
        fields=("qpos", "qvel", "sensordata", "actuator_force", "geom_friction"),
        previous=("qvel",),
        params={**task_params(robot), **START_PARAMS, **(params or {})},
        cameras=("track", "side"),
        variants=variants or {},
        meaning=offsets_from_default,
    )


@dataclass(frozen=True)
class _Sight(Sight):
    """MuJoCo's state as a `View`.

    Attributes:
        feet: their number; touch sensors of feet come first in `sensordata`, then their velocities, then other links.
        ground: the terrain, None on a plane.
    """

    feet: int
    ground: GroundFn | None

    def control(self, xp: Any, state: State, action: Array, params: Params) -> Mapping[str, Array]:
        """Joint targets for the actuators, and what the episode remembers."""
        return {"ctrl": joint_targets(xp, action, params), **self.remembered(xp, state, action, params)}

    def look(self, xp: Any, state: State, params: Params) -> View:
        """See `Sight.look`."""
        qpos, qvel, touch = (state.data[name] for name in ("qpos", "qvel", "sensordata"))
        kept, feet, quat = state.variables, self.feet, qpos[:, 3:7]
        soles = touch[:, feet : 4 * feet].reshape(-1, feet, 3)
        height, around = below_and_around(xp, self.ground, qpos[:, :3], quat, params)
        return View(
            lin_vel=into_frame(xp, quat, qvel[:, :3]),
            ang_vel=qvel[:, 3:_QVEL],
            gravity=projected_gravity(xp, quat),
            height=height,
            joint_pos=qpos[:, _QPOS:],
            joint_vel=qvel[:, _QVEL:],
            joint_acc=(qvel[:, _QVEL:] - state.previous["qvel"][:, _QVEL:]) / PERIOD_S,
            torque=state.data["actuator_force"],
            action=kept["action"],
            previous_action=kept["previous_action"],
            command=kept["command"],
            next_command=memory.command_of(xp, kept, params, PERIOD_S),
            phase=memory.phase_of(xp, kept, params, PERIOD_S),
            contact=touch[:, :feet] > TOUCH_N,
            air_time=kept["air_time"],
            foot_speed=xp.sqrt((soles[:, :, :2] * soles[:, :, :2]).sum(-1)),
            undesired=as_number(xp, touch[:, 4 * feet :] > TOUCH_N, touch).sum(-1),
            friction=state.data["geom_friction"][:, GROUND, :1],
            ground=around,
        )


@dataclass(frozen=True)
class _Start:
    """An episode's start as MuJoCo's fields."""

    robot: LeggedRobot
    ground: GroundFn | None

    def __call__(self, rng: np.random.Generator, model: mujoco.MjModel, params: Params) -> Mapping[str, np.ndarray]:
        """See `ResetFn`."""
        start = draw_start(rng, self.robot, self.ground, params)
        return {
            "qpos": np.concatenate((start.pose, start.joints)),
            "qvel": np.concatenate((start.rates, np.zeros(len(start.joints)))),
            "ctrl": np.array(params["default_joint_pos"]),
            **start.kept,
        }
