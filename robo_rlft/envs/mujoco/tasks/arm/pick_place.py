"""ArmPickPlace: the arm grasps a cube lying on the table and sets it down on a plinth; +1 when it rests there, let go.

Cube and plinth are at random places on opposite sides of the arm, the cube turned at random. The cube is held by
friction alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np

from robo_rlft.envs.mujoco.task import Array, MujocoTask, Observation, Params, Reward, State
from robo_rlft.envs.mujoco.tasks.arm.control import (
    ARM_JOINTS,
    CONTROL_PARAMS,
    FIELDS,
    POSE_NAMES,
    POSE_UNITS,
    PROPRIO_KEY,
    RATE_UNITS,
    VELOCITY_NAMES,
    command_lead,
    constant,
    moved_command,
    moved_pose,
    proprioception,
    tool_pose,
    tool_velocity,
)
from robo_rlft.envs.mujoco.tasks.arm.scene import arm_spec, start_map, touch
from robo_rlft.errors import ConfigError

CUBE_HALF = 0.02
"""Half the cube's side, m."""
CUBE_MASS = 0.1
SUBSTEP_S = 0.005
PLINTH_HEIGHT = 0.04
PLINTH_HALF_WIDTH = 0.045
FINGER_TRAVEL = 0.04
"""How far each finger opens from the middle, m."""
FINGER_LEAD = 0.006
"""Greatest lead of the commanded opening, m: it bounds the grasp to 15 N a side and the speed to about 0.1 m/s."""
PLACED_RADIUS = 0.025
"""Greatest distance of the resting cube from the plinth's middle, m."""
START_POSE = (0.5, 0.0, 0.22, 0.0, 0.0, 0.0)
START_RANGE = (0.04, 0.04, 0.04, 0.05, 0.05, 0.2)
"""Half widths of the start's uniform distribution: m and rad."""
_CUBE_QPOS = ARM_JOINTS + 2
"""The cube's free joint follows the arm's and the fingers' joints in qpos and qvel."""


def model(params: Params) -> mujoco.MjModel:
    """The arm, a cube on a free joint and a plinth placed anew in every episode."""
    if not 0.0 <= params["place_range"] <= 0.05:
        raise ConfigError(f"place_range is {params['place_range']} m: give a half width between 0 and 0.05 m")
    spec = arm_spec()
    # A light cube between two fingers asks for finer substeps, and for a friction cone without flattened sides.
    spec.option.timestep, spec.option.cone = SUBSTEP_S, mujoco.mjtCone.mjCONE_ELLIPTIC
    _add_plinth_and_cube(spec)
    for surface in ("table", "plinth"):
        touch(spec, "cube", surface, params["friction"])
    for pad in ("pad_left", "pad_right"):
        touch(spec, pad, "cube", params["friction"], condim=4, impedance=(0.95, 0.99))
        touch(spec, pad, "table", params["friction"])
        touch(spec, pad, "plinth", params["friction"])
    return spec.compile()


def reset(rng: np.random.Generator, model: mujoco.MjModel, params: Params) -> Mapping[str, np.ndarray]:
    """Cube and plinth on opposite sides, open gripper at a random pose above them."""
    draw = rng.uniform(-1.0, 1.0, 11)
    side = 0.12 * np.sign(draw[0])
    cube = np.array([0.5, side]) + draw[1:3] * (0.08, params["place_range"])
    goal = np.array([0.5, -side]) + draw[3:5] * (0.08, params["place_range"])
    half_yaw = draw[10] * params["cube_yaw_range"] / 2
    offset = draw[[5, 6, 7, 8, 9, 0]] * START_RANGE
    home, per_pose = start_map(model, START_POSE)
    fingers = np.full(2, FINGER_TRAVEL)
    cube_pose = np.array([*cube, CUBE_HALF, np.cos(half_yaw), 0.0, 0.0, np.sin(half_yaw)])
    command = START_POSE + offset
    return {
        "qpos": np.concatenate((home + per_pose @ offset, fingers, cube_pose)),
        "ctrl": np.append(command, FINGER_TRAVEL),
        "mocap_pos": np.array([[*goal, 0.0]]),
        "command": command,
        "goal": goal,
    }


def control(xp: Any, state: State, action: Array, params: Params) -> Mapping[str, Array]:
    """The pose command, and the opening of the gripper: shut at -1, open at +1, with a bounded force."""
    command = moved_command(xp, state, action, params)
    wished, measured = FINGER_TRAVEL * (1.0 + action[:, 6:7]) / 2.0, finger_opening(xp, state, params)
    opening = xp.minimum(xp.maximum(wished, measured - FINGER_LEAD), measured + FINGER_LEAD)
    return {"command": command, "ctrl": xp.concatenate((command, opening), -1)}


def finger_opening(xp: Any, state: State, params: Params) -> Array:
    """Distance of each finger from the middle."""
    return state.data["actuator_length"][:, 6:7]


def cube_position(xp: Any, state: State, params: Params) -> Array:
    """Centre of the cube in base axes."""
    return state.data["qpos"][:, _CUBE_QPOS : _CUBE_QPOS + 3]


def cube_turn(xp: Any, state: State, params: Params) -> Array:
    """Cosine and sine of four times the cube's yaw: the same for all of its four ways round."""
    w, x, y, z = (state.data["qpos"][:, _CUBE_QPOS + 3 + i] for i in range(4))
    yaw = xp.arctan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z))
    return xp.stack((xp.cos(4.0 * yaw), xp.sin(4.0 * yaw)), -1)


def cube_velocity(xp: Any, state: State, params: Params) -> Array:
    """Velocity of the cube's centre in base axes."""
    return state.data["qvel"][:, _CUBE_QPOS : _CUBE_QPOS + 3]


def goal_position(xp: Any, state: State, params: Params) -> Array:
    """Middle of the plinth."""
    return state.variables["goal"]


def placed(xp: Any, state: State, params: Params) -> Array:
    """The cube rests on the plinth near its middle and the fingers have let go."""
    cube = cube_position(xp, state, params)
    off = cube[:, :2] - state.variables["goal"]
    near = xp.sum(off * off, -1) < PLACED_RADIUS**2
    on_top = xp.abs(cube[:, 2] - (PLINTH_HEIGHT + CUBE_HALF)) < 0.004
    still = xp.sum(cube_velocity(xp, state, params) ** 2, -1) < 0.05**2
    return near & on_top & still & (finger_opening(xp, state, params)[:, 0] > CUBE_HALF + 0.008)


def success_reward(xp: Any, state: State, action: Array, params: Params) -> Array:
    """1 in the step that completes the task."""
    return xp.where(placed(xp, state, params), constant(xp, 1.0, action), constant(xp, 0.0, action))


TASK = MujocoTask(
    id="ArmPickPlace",
    description="7-joint arm sets a cube on a plinth, sparse reward",
    model=model,
    frame_skip=10,
    max_episode_steps=150,
    observations=(
        Observation("tool_pose", tool_pose, tuple(f"tool_{n}" for n in POSE_NAMES), POSE_UNITS),
        Observation("tool_velocity", tool_velocity, tuple(f"tool_{n}" for n in VELOCITY_NAMES), RATE_UNITS),
        Observation("finger_opening", finger_opening, ("finger_opening",), ("m",)),
        Observation("cube_position", cube_position, ("cube_x", "cube_y", "cube_z"), ("m", "m", "m")),
        Observation("cube_turn", cube_turn, ("cube_cos4yaw", "cube_sin4yaw"), ("", "")),
        Observation("cube_velocity", cube_velocity, ("cube_vx", "cube_vy", "cube_vz"), ("m/s", "m/s", "m/s")),
        Observation("goal", goal_position, ("goal_x", "goal_y"), ("m", "m")),
        Observation("lead", command_lead, tuple(f"lead_{n}" for n in POSE_NAMES), POSE_UNITS),
        *proprioception(),
        Observation("finger_opening", finger_opening, ("finger_opening",), ("m",), PROPRIO_KEY),
    ),
    rewards=(Reward("placed", success_reward),),
    terminated=placed,
    success=placed,
    reset=reset,
    control=control,
    action_names=(*(f"d{n}" for n in POSE_NAMES), "gripper"),
    fields=(*FIELDS, "qpos", "qvel"),
    fresh=True,
    params={
        "place_range": 0.05,
        "cube_yaw_range": float(np.pi / 4),
        "friction": 1.0,
        **CONTROL_PARAMS,
        "workspace_low": (0.36, -0.22, 0.012, -0.2, -0.2, -0.9),
        "workspace_high": (0.66, 0.22, 0.35, 0.2, 0.2, 0.9),
        "step_m": 0.02,
        "step_rad": 0.1,
        "lead_m": 0.03,
        "lead_rad": 0.2,
    },
    cameras=("front", "closeup", "wrist"),
    meaning=lambda params: moved_pose(params, (FINGER_TRAVEL / 2.0, FINGER_TRAVEL / 2.0)),
)


def _add_plinth_and_cube(spec: mujoco.MjSpec) -> None:
    box = mujoco.mjtGeom.mjGEOM_BOX
    plinth = spec.worldbody.add_body(name="plinth", mocap=True)
    half_height = PLINTH_HEIGHT / 2
    plinth.add_geom(
        name="plinth",
        type=box,
        pos=[0.0, 0.0, half_height],
        size=[PLINTH_HALF_WIDTH, PLINTH_HALF_WIDTH, half_height],
        rgba=[0.22, 0.36, 0.50, 1.0],
    )
    cube = spec.worldbody.add_body(name="cube", pos=[0.5, 0.0, CUBE_HALF])
    cube.add_freejoint()
    cube.add_geom(name="cube", type=box, size=3 * [CUBE_HALF], mass=CUBE_MASS, rgba=[0.86, 0.33, 0.20, 1.0])
