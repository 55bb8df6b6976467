"""PandaReach and PandaLift: the Panda that Genesis ships brings its hand to a point, or lifts a cube off the floor.

Actions, observations and their names are those of the arm of `envs.mujoco.tasks.arm`: the action moves a commanded
pose of the tool, which the joints follow through differential inverse kinematics. Gravity is compensated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from robo_rlft.envs.genesis.kinematics import hinge_jacobian, joint_step, product, rotation_vector, third_axis
from robo_rlft.envs.genesis.task import Array, Entities, GenesisTask, Marker, Observation, Params, Reward, State, View
from robo_rlft.envs.mujoco.tasks.arm.control import (
    POSE_NAMES,
    POSE_UNITS,
    PROPRIO_KEY,
    RATE_UNITS,
    VELOCITY_NAMES,
    command_lead,
    constant,
    moved_command,
    proprioception,
    tool_pose,
    tool_velocity,
)

JOINTS = tuple(f"joint{i}" for i in range(1, 8))
FINGERS = ("finger_joint1", "finger_joint2")
ARM = len(JOINTS)
HAND, FIRST_LINK = 8, 1
"""Links of the robot's entity: the hand, and the one behind the first joint."""
TOOL_M = 0.1034
"""From the hand's frame to the point between the finger tips, m."""
HOME = (0.0, -0.2594, 0.0, -2.4315, 0.0, 2.1721, 0.7854)
"""Joints that hold the tool 0.45 m ahead and 0.30 m up, pointing straight down, rad."""
_UNDO_DOWN = (0.0, -1.0, 0.0, 0.0)
"""Turns the hand of a tool that points down, half a turn about x, back to the base's axes."""
KP = (4500.0, 4500.0, 3500.0, 3500.0, 2000.0, 2000.0, 2000.0)
KV = (450.0, 450.0, 350.0, 350.0, 200.0, 200.0, 200.0)
"""Stiffness (N m/rad) and damping (N m s/rad) of the joints, as Genesis' own examples set them."""
FINGER_KP, FINGER_KV, FINGER_N = 2000.0, 100.0, 40.0
FINGER_TRAVEL, FINGER_LEAD = 0.04, 0.006
"""How far each finger opens from the middle, and the greatest lead of its target (12 N), m."""
CUBE_HALF, CUBE_DENSITY = 0.02, 400.0

CONTROL: Params = {
    "workspace_low": (0.30, -0.25, 0.012, -0.2, -0.2, -0.9),
    "workspace_high": (0.65, 0.25, 0.50, 0.2, 0.2, 0.9),
    "step_m": 0.02,
    "step_rad": 0.1,
    "lead_m": 0.03,
    "lead_rad": 0.2,
    "friction": 1.0,
}
"""Bounds of the command, its change per control step at |action| = 1, its greatest lead, and the cube's friction."""


def prepare(entities: Entities, params: Params) -> None:
    """Gains of the arm and the fingers."""
    robot = entities["robot"]
    robot.set_dofs_kp([*KP, FINGER_KP, FINGER_KP])
    robot.set_dofs_kv([*KV, FINGER_KV, FINGER_KV])
    arm_n = [87.0] * 4 + [12.0] * 3
    limit = [*arm_n, FINGER_N, FINGER_N]
    robot.set_dofs_force_range([-n for n in limit], limit)


def arm_scene(gs: ModuleType, scene: Any, params: Params) -> Entities:
    """The arm on the floor."""
    rigid = gs.materials.Rigid
    scene.add_entity(gs.morphs.Plane(), material=rigid(friction=params["friction"]))
    arm = gs.morphs.MJCF(file="xml/franka_emika_panda/panda.xml")
    return {"robot": scene.add_entity(arm, material=rigid(gravity_compensation=1.0, friction=params["friction"]))}


def cube_scene(gs: ModuleType, scene: Any, params: Params) -> Entities:
    """The arm and a cube on the floor."""
    box = gs.morphs.Box(size=(2 * CUBE_HALF,) * 3, pos=(0.5, 0.0, CUBE_HALF))
    stuff = gs.materials.Rigid(rho=CUBE_DENSITY, friction=params["friction"])
    entities, red = arm_scene(gs, scene, params), gs.surfaces.Plastic(color=(0.9, 0.3, 0.2))
    return {**entities, "cube": scene.add_entity(box, material=stuff, surface=red)}


def tool(xp: Any, fields: Mapping[str, Array], params: Params) -> Mapping[str, Array]:
    """The tool's pose and velocity and the gripper's opening, where the arm's terms look for them; and its Jacobian."""
    links = slice(FIRST_LINK, FIRST_LINK + ARM)
    axes = third_axis(xp, fields["robot.quat"])
    point = fields["robot.pos"][:, HAND] + TOOL_M * axes[:, HAND]
    jacobian = hinge_jacobian(xp, fields["robot.pos"][:, links], axes[:, links], point)
    undo = constant(xp, _UNDO_DOWN, point)[None]
    turn = rotation_vector(xp, product(xp, fields["robot.quat"][:, HAND], undo))
    qpos, qvel = fields["robot.qpos"], fields["robot.qvel"]
    opening = qpos[:, ARM:].mean(-1)[:, None]
    return {
        "actuator_length": xp.concatenate((point, turn, opening), -1),
        "actuator_velocity": (jacobian @ qvel[:, :ARM, None])[:, :, 0],
        "jacobian": jacobian,
    }


def control(xp: Any, state: State, action: Array, params: Params) -> Mapping[str, Array]:
    """The command, the joint targets that follow it, and the gripper: shut at -1, open at +1, with a bounded force."""
    command = moved_command(xp, state, action, params)
    joints = state.data["robot.qpos"][:, :ARM]
    posture = 0.1 * (constant(xp, HOME, joints) - joints)
    off = command - tool_pose(xp, state, params)
    target = joints + joint_step(xp, state.data["jacobian"], off, posture, damping=0.05)
    wished, measured = FINGER_TRAVEL * (1.0 + action[:, 6:7]) / 2.0, finger_opening(xp, state, params)
    opening = xp.minimum(xp.maximum(wished, measured - FINGER_LEAD), measured + FINGER_LEAD)
    return {"command": command, "robot.target": xp.concatenate((target, opening, opening), -1)}


def finger_opening(xp: Any, state: State, params: Params) -> Array:
    """Mean distance of the fingers from the middle."""
    return state.data["actuator_length"][:, 6:7]


def goal_position(xp: Any, state: State, params: Params) -> Array:
    """Where the tool shall be."""
    return state.variables["goal"]


def goal_distance(xp: Any, state: State) -> Array:
    """From the tool to the goal, [N], m."""
    off = state.data["actuator_length"][:, :3] - state.variables["goal"]
    return xp.sqrt((off * off).sum(-1))


def reached(xp: Any, state: State, params: Params) -> Array:
    """The tool is at the goal and still."""
    speed = tool_velocity(xp, state, params)[:, :3]
    return (goal_distance(xp, state) < params["reach_radius"]) & ((speed * speed).sum(-1) < 0.1**2)


def nearness(xp: Any, state: State, action: Array, params: Params) -> Array:
    """1 - tanh(10 d), d the distance to the goal in m."""
    return 1.0 - xp.tanh(10.0 * goal_distance(xp, state))


def reach_reward(xp: Any, state: State, action: Array, params: Params) -> Array:
    """1 at the goal."""
    return _as_number(xp, reached(xp, state, params), action)


def cube_position(xp: Any, state: State, params: Params) -> Array:
    """Centre of the cube in base axes."""
    return state.data["cube.qpos"][:, :3]


def cube_turn(xp: Any, state: State, params: Params) -> Array:
    """Cosine and sine of four times the cube's yaw: the same for all of its four ways round."""
    w, x, y, z = (state.data["cube.qpos"][:, 3 + i] for i in range(4))
    yaw = xp.arctan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z))
    return xp.stack((xp.cos(4.0 * yaw), xp.sin(4.0 * yaw)), -1)


def cube_velocity(xp: Any, state: State, params: Params) -> Array:
    """Velocity of the cube's centre in base axes."""
    return state.data["cube.qvel"][:, :3]


def cube_from_tool(xp: Any, state: State) -> Array:
    """Distance of the cube's centre from the tool, [N], m."""
    off = cube_position(xp, state, {}) - state.data["actuator_length"][:, :3]
    return xp.sqrt((off * off).sum(-1))


def lifted(xp: Any, state: State, params: Params) -> Array:
    """The cube is `lift_height` above its place on the floor, in the hand."""
    raised = cube_position(xp, state, params)[:, 2] - CUBE_HALF > params["lift_height"]
    return raised & (cube_from_tool(xp, state) < 0.03)


def lift_reward(xp: Any, state: State, action: Array, params: Params) -> Array:
    """1 in the step that completes the task."""
    return _as_number(xp, lifted(xp, state, params), action)


def lift_shaping(xp: Any, state: State, action: Array, params: Params) -> Array:
    """`shaping` times the nearness of hand and cube plus the share of the height that the cube has risen."""
    near = 1.0 - xp.tanh(10.0 * cube_from_tool(xp, state))
    risen = xp.clip((cube_position(xp, state, params)[:, 2] - CUBE_HALF) / params["lift_height"], 0.0, 1.0)
    return params["shaping"] * (near + risen)


def arm_start(rng: np.random.Generator, params: Params) -> dict[str, np.ndarray]:
    """The arm near its home, the gripper open; the command is where the tool is."""
    joints = np.array(HOME) + params["start_range"] * rng.uniform(-1.0, 1.0, ARM)
    open_wide = np.full(2, FINGER_TRAVEL)
    pose = np.concatenate((joints, open_wide))
    return {"robot.qpos": pose, "robot.target": pose, "command": forward(joints)}


def reset_reach(rng: np.random.Generator, params: Params) -> Mapping[str, np.ndarray]:
    """A goal anywhere in the box of goals."""
    goal = rng.uniform(params["goal_low"], params["goal_high"])
    return {**arm_start(rng, params), "goal": goal}


def reset_lift(rng: np.random.Generator, params: Params) -> Mapping[str, np.ndarray]:
    """A cube anywhere on its part of the floor, turned at random."""
    x, y = np.array([0.48, 0.0]) + params["cube_range"] * rng.uniform(-1.0, 1.0, 2)
    half_yaw = params["cube_yaw_range"] * rng.uniform(-1.0, 1.0) / 2
    cube = np.array([x, y, CUBE_HALF, np.cos(half_yaw), 0.0, 0.0, np.sin(half_yaw)])
    return {**arm_start(rng, params), "cube.qpos": cube}


def forward(joints: np.ndarray) -> np.ndarray:
    """Pose of the tool (`POSE_NAMES`) for joints [7], by the maker's kinematics."""
    frame = np.eye(4)
    for (shift, roll), angle in zip(_LINKS, joints, strict=True):
        frame = frame @ _placed(shift, roll) @ _turned(angle)
    frame = frame @ _placed((0.0, 0.0, 0.107 + TOOL_M), 0.0) @ _turned(-math.pi / 4)
    turn = frame[:3, :3] @ np.diag([1.0, -1.0, -1.0])
    return np.concatenate((frame[:3, 3], rotation_vector(np, _quat(turn)[None])[0]))


_HALF = math.pi / 2
_LINKS = (
    ((0.0, 0.0, 0.333), 0.0),
    ((0.0, 0.0, 0.0), -_HALF),
    ((0.0, -0.316, 0.0), _HALF),
    ((0.0825, 0.0, 0.0), _HALF),
    ((-0.0825, 0.384, 0.0), -_HALF),
    ((0.0, 0.0, 0.0), _HALF),
    ((0.088, 0.0, 0.0), _HALF),
)
"""Where each joint's frame stands in the one before it, m, and its roll about x, rad (Franka's published table)."""


def _placed(shift: tuple[float, float, float], roll: float) -> np.ndarray:
    c, s = math.cos(roll), math.sin(roll)
    return np.array([[1, 0, 0, shift[0]], [0, c, -s, shift[1]], [0, s, c, shift[2]], [0, 0, 0, 1.0]])


def _turned(angle: float) -> np.ndarray:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])


def _quat(m: np.ndarray) -> np.ndarray:
    """Of a rotation by less than half a turn."""
    w = math.sqrt(max(1.0 + np.trace(m), 1e-12)) / 2
    return np.array([w, *(np.array([m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]]) / (4 * w))])


def _as_number(xp: Any, flags: Array, like: Array) -> Array:
    return xp.where(flags, constant(xp, 1.0, like), constant(xp, 0.0, like))


def _seen(*about: Observation) -> tuple[Observation, ...]:
    """What the arm knows of itself, and what the task is about."""
    return (
        Observation("tool_pose", tool_pose, tuple(f"tool_{n}" for n in POSE_NAMES), POSE_UNITS),
        Observation("tool_velocity", tool_velocity, tuple(f"tool_{n}" for n in VELOCITY_NAMES), RATE_UNITS),
        Observation("finger_opening", finger_opening, ("finger_opening",), ("m",)),
        *about,
        Observation("lead", command_lead, tuple(f"lead_{n}" for n in POSE_NAMES), POSE_UNITS),
        *proprioception(),
        Observation("finger_opening", finger_opening, ("finger_opening",), ("m",), PROPRIO_KEY),
    )


_TIMING: dict[str, Any] = {
    "prepare": prepare,
    "targets": {"robot": (*JOINTS, *FINGERS)},
    "period_s": 0.05,
    "substeps": 10,
    "control": control,
    "derived": tool,
    "action_names": (*(f"d{n}" for n in POSE_NAMES), "gripper"),
    "views": {"front": View((1.25, 0.75, 0.7), (0.35, 0.0, 0.25)), "side": View((0.4, 1.3, 0.5), (0.35, 0.0, 0.25))},
}

REACH = GenesisTask(
    id="PandaReach",
    description="the Panda brings its hand to a point in the air",
    scene=arm_scene,
    max_episode_steps=50,
    observations=_seen(Observation("goal", goal_position, ("goal_x", "goal_y", "goal_z"), ("m", "m", "m"))),
    rewards=(Reward("nearness", nearness, 0.1), Reward("reached", reach_reward)),
    terminated=reached,
    success=reached,
    reset=reset_reach,
    params={
        **CONTROL,
        "goal_low": (0.35, -0.2, 0.1),
        "goal_high": (0.6, 0.2, 0.45),
        "reach_radius": 0.015,
        "start_range": 0.05,
    },
    words="move the hand to the red ball",
    markers=(Marker(goal_position),),
    **_TIMING,
)

LIFT = GenesisTask(
    id="PandaLift",
    description="the Panda grasps a cube and lifts it off the floor, sparse reward",
    scene=cube_scene,
    max_episode_steps=100,
    observations=_seen(
        Observation("cube_position", cube_position, ("cube_x", "cube_y", "cube_z"), ("m", "m", "m")),
        Observation("cube_turn", cube_turn, ("cube_cos4yaw", "cube_sin4yaw"), ("", "")),
        Observation("cube_velocity", cube_velocity, ("cube_vx", "cube_vy", "cube_vz"), ("m/s", "m/s", "m/s")),
    ),
    rewards=(Reward("lifted", lift_reward), Reward("shaping", lift_shaping)),
    terminated=lifted,
    success=lifted,
    reset=reset_lift,
    params={
        **CONTROL,
        "cube_range": (0.1, 0.15),
        "cube_yaw_range": math.pi / 4,
        "lift_height": 0.15,
        "shaping": 0.0,
        "start_range": 0.05,
    },
    words="lift the cube",
    **_TIMING,
)
