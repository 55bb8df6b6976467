"""Go2Flat and Go2Rough: the Go2 that Genesis ships follows velocity commands, on a plane or on rough ground.

Terms, commands and ground are those of `envs.legged`, the same text as on MuJoCo.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from robo_rlft.envs.genesis.kinematics import cross
from robo_rlft.envs.genesis.task import Array, Entities, GenesisTask, Observation, Params, Reward, State
from robo_rlft.envs.genesis.task import View as Camera
from robo_rlft.envs.legged import memory
from robo_rlft.envs.legged.robots import GO2
from robo_rlft.envs.legged.sight import (
    EPISODE_S,
    START_PARAMS,
    TOUCH_N,
    GroundFn,
    Sight,
    below_and_around,
    draw_start,
)
from robo_rlft.envs.legged.tables import (
    PERIOD_S,
    QUADRUPED_REWARDS,
    Observed,
    privileged,
    proprioception,
    task_params,
)
from robo_rlft.envs.legged.terrain import SCAN_POINTS, TILES, Terrain, terrain
from robo_rlft.envs.legged.view import View, as_number, into_frame, joint_targets, projected_gravity
from robo_rlft.errors import ConfigError
from robo_rlft.spec import CRITIC_KEY

SUBSTEPS = 4
HEIGHT_STEP_M = 0.001
"""Heights of the ground are rounded to this."""
LINKS = ("base", *(f"{leg}_{part}" for leg in ("FL", "FR", "RL", "RR") for part in ("hip", "thigh", "calf", "foot")))
FEET = tuple(LINKS.index(foot) for foot in GO2.feet)
OTHERS = tuple(i for i in range(len(LINKS)) if i not in FEET)
_QPOS, _QVEL = 7, 6
"""Entries of the free joint in qpos and qvel."""


def rough_ground(params: Params) -> Terrain:
    """The terrain of Go2Rough."""
    return terrain(params["terrain_seed"])


def flat_scene(gs: ModuleType, scene: Any, params: Params) -> Entities:
    """The robot on a plane."""
    scene.add_entity(gs.morphs.Plane(), material=_rigid(gs, params))
    return _robot(gs, scene, params)


def rough_scene(gs: ModuleType, scene: Any, params: Params) -> Entities:
    """The robot on the terrain."""
    ground = rough_ground(params)
    heights = ground.heights.T
    across = [-(count - 1) / 2 * ground.cell for count in heights.shape]
    field = gs.morphs.Terrain(
        height_field=np.round(heights / HEIGHT_STEP_M),
        horizontal_scale=ground.cell,
        vertical_scale=HEIGHT_STEP_M,
        pos=(*across, 0.0),
    )
    scene.add_entity(field, material=_rigid(gs, params))
    return _robot(gs, scene, params)


def prepare(entities: Entities, params: Params) -> None:
    """Gains and torque limits of the joints.

    Raises:
        ConfigError: Genesis ships another Go2 than the one this file was written for.
    """
    robot = entities["robot"]
    if (found := tuple(link.name for link in robot.links)) != LINKS:
        raise ConfigError(f"the Go2 of this version of Genesis has the links {found}: expected {LINKS}")
    dofs = list(range(_QVEL, _QVEL + len(GO2.joints)))
    robot.set_dofs_kp(list(params["kp"]), dofs)
    robot.set_dofs_kv(list(params["kd"]), dofs)
    robot.set_dofs_force_range([-n for n in params["torque_limit"]], list(params["torque_limit"]), dofs)


@dataclass(frozen=True)
class _Sight(Sight):
    """Genesis' state as a `View`.

    Attributes:
        ground: the terrain, None on a plane.
    """

    ground: GroundFn | None

    def control(self, xp: Any, state: State, action: Array, params: Params) -> Mapping[str, Array]:
        """Joint targets, and what the episode remembers."""
        return {"robot.target": joint_targets(xp, action, params), **self.remembered(xp, state, action, params)}

    def look(self, xp: Any, state: State, params: Params) -> View:
        """See `Sight.look`."""
        data, kept = state.data, state.variables
        qpos, qvel = data["robot.qpos"], data["robot.qvel"]
        quat, feet = qpos[:, 3:_QPOS], list(FEET)
        force = xp.sqrt((data["robot.contact"] * data["robot.contact"]).sum(-1))
        arm = data["robot.pos"][:, feet] - data["robot.com"][:, feet]
        speed = data["robot.com_vel"][:, feet] + cross(xp, data["robot.com_ang"][:, feet], arm)
        height, around = below_and_around(xp, self.ground, qpos[:, :3], quat, params)
        return View(
            lin_vel=into_frame(xp, quat, qvel[:, :3]),
            ang_vel=qvel[:, 3:_QVEL],
            gravity=projected_gravity(xp, quat),
            height=height,
            joint_pos=qpos[:, _QPOS:],
            joint_vel=qvel[:, _QVEL:],
            joint_acc=(qvel[:, _QVEL:] - state.previous["robot.qvel"][:, _QVEL:]) / PERIOD_S,
            torque=data["robot.torque"][:, _QVEL:],
            action=kept["action"],
            previous_action=kept["previous_action"],
            command=kept["command"],
            next_command=memory.command_of(xp, kept, params, PERIOD_S),
            phase=memory.phase_of(xp, kept, params, PERIOD_S),
            contact=force[:, feet] > TOUCH_N,
            air_time=kept["air_time"],
            foot_speed=xp.sqrt((speed[:, :, :2] * speed[:, :, :2]).sum(-1)),
            undesired=as_number(xp, force[:, list(OTHERS)] > TOUCH_N, force).sum(-1),
            friction=params["friction"] * data["robot.friction"][:, :1],
            ground=around,
        )


@dataclass(frozen=True)
class _Start:
    """An episode's start as Genesis' fields."""

    ground: GroundFn | None

    def __call__(self, rng: np.random.Generator, params: Params) -> Mapping[str, np.ndarray]:
        """See `ResetFn`."""
        start = draw_start(rng, GO2, self.ground, params)
        return {
            "robot.qpos": np.concatenate((start.pose, start.joints)),
            "robot.qvel": np.concatenate((start.rates, np.zeros(len(start.joints)))),
            "robot.target": np.array(params["default_joint_pos"]),
            **start.kept,
        }


def _robot(gs: ModuleType, scene: Any, params: Params) -> Entities:
    body = gs.morphs.URDF(file="urdf/go2/urdf/go2.urdf", pos=(0.0, 0.0, 0.42), links_to_keep=list(GO2.feet))
    return {"robot": scene.add_entity(body, material=_rigid(gs, params))}


def _rigid(gs: ModuleType, params: Params) -> Any:
    return gs.materials.Rigid(friction=params["friction"])


def _task(
    name: str, description: str, scene: Any, seen: tuple[Observed, ...], ground: GroundFn | None = None, **more: Any
) -> GenesisTask:
    sight = _Sight(ground)
    params = {**task_params(GO2), **START_PARAMS, "friction": 0.8, **more.pop("params", {})}
    return GenesisTask(
        id=name,
        description=description,
        scene=scene,
        prepare=prepare,
        targets={"robot": GO2.joints},
        period_s=PERIOD_S,
        substeps=SUBSTEPS,
        max_episode_steps=round(EPISODE_S / PERIOD_S),
        observations=tuple(
            Observation(
                o.name, sight.observation(o), o.names, o.units, o.group, o.measured, o.frame, o.joints, o.offset
            )
            for o in seen
        ),
        rewards=tuple(Reward(r.name, sight.reward(r), r.weight) for r in QUADRUPED_REWARDS),
        terminated=sight.fallen,
        success=sight.tracked,
        metrics={"velocity_error": sight.velocity_error, "yaw_error": sight.yaw_error},
        reset=_Start(ground),
        control=sight.control,
        action_names=GO2.joints,
        action_low=-GO2.action_bound,
        action_high=GO2.action_bound,
        previous=("robot.qvel",),
        params=params,
        views={"track": Camera((1.1, -1.1, 0.8), (0.0, 0.0, 0.25)), "side": Camera((0.0, -1.6, 0.5), (0.0, 0.0, 0.25))},
        floats="robot",
        **more,
    )


FLAT = _task(
    "Go2Flat",
    "the Go2 follows velocity commands on a plane",
    flat_scene,
    (*proprioception(GO2), *proprioception(GO2, CRITIC_KEY), *privileged(GO2)),
)
ROUGH = _task(
    "Go2Rough",
    "the Go2 follows velocity commands on hills, rubble and stairs",
    rough_scene,
    (*proprioception(GO2), *proprioception(GO2, CRITIC_KEY), *privileged(GO2, len(SCAN_POINTS))),
    rough_ground,
    variants={name: {"tile": i} for i, name in enumerate(TILES)},
    params={"tile": 0, "terrain_seed": 0, "command_vx": (-0.5, 1.0), "success_velocity": 0.35},
)
