"""Velocity tracking on MuJoCo: its state as a `View` of `envs.legged`, and that package's tables as a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

from robo_rlft.envs.legged import memory
from robo_rlft.envs.legged.robots import LeggedRobot
from robo_rlft.envs.legged.tables import PERIOD_S, Observed, Paid, fallen, task_params
from robo_rlft.envs.legged.terrain import Terrain, height_at, scan
from robo_rlft.envs.legged.view import View, as_number, into_frame, joint_targets, projected_gravity, yaw
from robo_rlft.envs.mujoco.task import Array, MujocoTask, Observation, Params, Reward, State

FRAME_SKIP = 4
TOUCH_N = 1.0
"""A foot or a link touches from this force on."""
EPISODE_S = 20.0
START_GAP_M = 0.01
"""Air below the feet at the start, for joints that begin a little off the default pose."""
GROUND = 0
"""The ground is a model's first geom; its friction counts for all that touches it."""
VIEW = "legged view"
_QPOS, _QVEL = 7, 6
"""Entries of the free joint in qpos and qvel."""
GroundFn = Callable[[Params], Terrain]
"""The terrain that parameters mean."""


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
            Observation(o.name, sight.observation(o), o.names, o.units, o.group, o.measured) for o in observations
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
    )


START_PARAMS: Params = {"start_joint_noise": 0.1, "start_velocity": 0.2}
"""Half widths of the start's uniform noise: joint positions, rad, and the base's velocities, m/s and rad/s."""


@dataclass(frozen=True)
class _Sight:
    """The terms of `legged.tables` as terms of the engine.

    Attributes:
        feet: their number; touch sensors of feet come first in `sensordata`, then their velocities, then other links.
        ground: the terrain, None on a plane.
    """

    feet: int
    ground: GroundFn | None

    def __call__(self, xp: Any, state: State, params: Params) -> View:
        """The view of a state, made once."""
        if VIEW not in state.memo:
            state.memo[VIEW] = self._look(xp, state, params)
        return state.memo[VIEW]

    def observation(self, term: Observed) -> Callable[[Any, State, Params], Array]:
        """An observation term of the engine."""
        return lambda xp, state, params: term.fn(xp, self(xp, state, params), params)

    def reward(self, term: Paid) -> Callable[[Any, State, Array, Params], Array]:
        """A reward term of the engine."""
        return lambda xp, state, action, params: term.fn(xp, self(xp, state, params), params)

    def fallen(self, xp: Any, state: State, params: Params) -> Array:
        """The episode's end."""
        return fallen(xp, self(xp, state, params), params)

    def tracked(self, xp: Any, state: State, params: Params) -> Array:
        """The robot has followed its commands for `success_s`, bool [N]."""
        steps = round(params["success_s"] / PERIOD_S)
        return (state.variables["steps"] == steps) & (
            self.velocity_error(xp, state, params) <= params["success_velocity"]
        )

    def velocity_error(self, xp: Any, state: State, params: Params) -> Array:
        """Mean error of the velocity in the plane, [N], m/s."""
        return memory.mean_errors(xp, state.variables, self(xp, state, params))[0]

    def yaw_error(self, xp: Any, state: State, params: Params) -> Array:
        """Mean error of the yaw rate, [N], rad/s."""
        return memory.mean_errors(xp, state.variables, self(xp, state, params))[1]

    def control(self, xp: Any, state: State, action: Array, params: Params) -> Mapping[str, Array]:
        """Joint targets for the actuators, and what the episode remembers."""
        before = self(xp, state, params)
        remembered = memory.carry(xp, state.variables, before, action, params, PERIOD_S)
        return {"ctrl": joint_targets(xp, action, params), **remembered}

    def _look(self, xp: Any, state: State, params: Params) -> View:
        qpos, qvel, touch = (state.data[name] for name in ("qpos", "qvel", "sensordata"))
        kept, feet, quat = state.variables, self.feet, qpos[:, 3:7]
        soles = touch[:, feet : 4 * feet].reshape(-1, feet, 3)
        height, around = self._ground(xp, qpos, params)
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

    def _ground(self, xp: Any, qpos: Array, params: Params) -> tuple[Array, Array]:
        """Height of the base over the ground, [N], and of the ground around it, [N, P]."""
        if self.ground is None:
            return qpos[:, 2], qpos[:, :0]
        terrain = self.ground(params)
        base = qpos[:, 2]
        around = scan(xp, terrain, qpos[:, :2], yaw(xp, qpos[:, 3:7])) - base[:, None]
        return base - height_at(xp, terrain, qpos[:, :2]), around


@dataclass(frozen=True)
class _Start:
    """Near the default pose, heading anywhere, on the plane or on the tile of the episode."""

    robot: LeggedRobot
    ground: GroundFn | None

    def __call__(self, rng: np.random.Generator, model: mujoco.MjModel, params: Params) -> Mapping[str, np.ndarray]:
        """See `ResetFn`."""
        robot, default = self.robot, np.array(params["default_joint_pos"])
        kept = memory.begin(rng, params, len(robot.joints), len(robot.feet))
        heading = rng.uniform(-np.pi, np.pi) / 2
        noise = params["start_joint_noise"] * rng.uniform(-1.0, 1.0, len(default))
        speed = params["start_velocity"] * rng.uniform(-1.0, 1.0, _QVEL)
        x, y, z = self._place(rng, params)
        joints = np.clip(default + noise, params["joint_low"], params["joint_high"])
        stand = z + params["stand_height"] + START_GAP_M
        return {
            "qpos": np.concatenate(([x, y, stand, np.cos(heading), 0.0, 0.0, np.sin(heading)], joints)),
            "qvel": np.concatenate((speed, np.zeros(len(default)))),
            "ctrl": default,
            **kept,
        }

    def _place(self, rng: np.random.Generator, params: Params) -> tuple[float, float, float]:
        if self.ground is None:
            return 0.0, 0.0, 0.0
        terrain = self.ground(params)
        spot = terrain.origins[params["tile"]] + rng.uniform(-1.0, 1.0, 2)
        return float(spot[0]), float(spot[1]), float(terrain.highest_around(spot))
