"""ArmPegInsert: the arm lowers a square peg into a square hole with a millimetre to spare; +1 when it is in.

The precise insertion of ResiP (Ankile et al. 2024) reduced to its core: position and yaw of the hole and the start
of the arm are random, the reward is sparse, and contact decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np

from robo_rlft.envs.mujoco.task import Array, MujocoTask, Observation, Params, Reward, State
from robo_rlft.envs.mujoco.tasks.arm.control import (
    CONTROL_PARAMS,
    FIELDS,
    POSE_NAMES,
    POSE_UNITS,
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

PEG_SIDE = 0.024
"""Width of the square peg, m."""
PEG_EDGE_RADIUS = 0.0005
"""Rounding of the peg's edges and corners, m."""
PEG_LENGTH = 0.10
PEG_TIP = 0.175
"""Distance from the hand's flange to the peg's tip along the approach direction, m."""
HOLE_DEPTH = 0.035
FIXTURE_HALF_WIDTH = 0.06
INSERTED_DEPTH = 0.025
"""The tip counts as inserted this far below the rim, m."""
CENTRE = (0.5, 0.0)
"""Middle of the range of holes and of starts in the base frame, m."""
START_POSE = (*CENTRE, 0.13, 0.0, 0.0, 0.0)
START_RANGE = (0.03, 0.03, 0.02, 0.04, 0.04, 0.15)
"""Half widths of the start's uniform distribution: m and rad."""


def model(params: Params) -> mujoco.MjModel:
    """The arm with the peg in its gripper, and the fixture as a body placed anew in every episode."""
    if not 0.0 < params["clearance"] < 0.01:
        raise ConfigError(f"clearance is {params['clearance']} m: give a radial clearance between 0 and 0.01 m")
    spec = arm_spec()
    _hold_peg(spec)
    _add_fixture(spec, PEG_SIDE / 2 + params["clearance"])
    _let_touch(spec, params["friction"])
    # Every moving body is compensated for its weight, so a world without gravity is the same and faster.
    spec.option.gravity = [0.0, 0.0, 0.0]
    for body in spec.bodies:
        body.gravcomp = 0.0
    return spec.compile()


def reset(rng: np.random.Generator, model: mujoco.MjModel, params: Params) -> Mapping[str, np.ndarray]:
    """A random hole, what the robot is told of it, and a random start above the middle."""
    draw = rng.uniform(-1.0, 1.0, 9)
    half = (params["hole_range"], params["hole_range"], params["hole_yaw_range"])
    hole = np.array((*CENTRE, 0.0)) + draw[:3] * half
    noise = rng.standard_normal(3) * _HOLE_NOISE_SHAPE * params["hole_noise"]
    offset = draw[3:] * START_RANGE * params["start_range"]
    home, per_pose = start_map(model, START_POSE)
    return {
        "qpos": home + per_pose @ offset,
        "ctrl": START_POSE + offset,
        "mocap_pos": np.array([[hole[0], hole[1], 0.0]]),
        "mocap_quat": np.array([[np.cos(hole[2] / 2), 0.0, 0.0, np.sin(hole[2] / 2)]]),
        "command": START_POSE + offset,
        "hole": hole,
        "hole_seen": hole + noise,
    }


def control(xp: Any, state: State, action: Array, params: Params) -> Mapping[str, Array]:
    """The pose command, which is also the servos' target."""
    command = moved_command(xp, state, action, params)
    return {"command": command, "ctrl": command}


def hole_pose(xp: Any, state: State, params: Params) -> Array:
    """Position and yaw of the hole as measured once at the start of the episode."""
    return state.variables["hole_seen"]


def tip_in_hole(xp: Any, state: State) -> Array:
    """The peg's tip in the hole's frame, [N, 3]: lateral offsets and the height above the rim, m."""
    hole, tip = state.variables["hole"], state.data["actuator_length"]
    dx, dy = tip[:, 0] - hole[:, 0], tip[:, 1] - hole[:, 1]
    cos, sin = xp.cos(hole[:, 2]), xp.sin(hole[:, 2])
    return xp.stack((cos * dx + sin * dy, cos * dy - sin * dx, tip[:, 2] - HOLE_DEPTH), -1)


def inserted(xp: Any, state: State, params: Params) -> Array:
    """The tip is `INSERTED_DEPTH` deep and within the hole's walls."""
    tip = tip_in_hole(xp, state)
    half = PEG_SIDE / 2 + params["clearance"]
    return (tip[:, 2] <= -INSERTED_DEPTH) & (xp.abs(tip[:, 0]) < half) & (xp.abs(tip[:, 1]) < half)


def overloaded(xp: Any, state: State, params: Params) -> Array:
    """The arm pushes harder than the parts bear: a robot's protective stop. A limit of 0 N switches it off."""
    force = state.data["actuator_force"][:, :3]
    limit = params["force_limit"]
    return (limit > 0.0) & (xp.sum(force * force, -1) > limit**2)


def ended(xp: Any, state: State, params: Params) -> Array:
    """The peg is in, or the protective stop was hit."""
    return inserted(xp, state, params) | overloaded(xp, state, params)


def success_reward(xp: Any, state: State, action: Array, params: Params) -> Array:
    """1 in the step that inserts the peg."""
    return xp.where(inserted(xp, state, params), constant(xp, 1.0, action), constant(xp, 0.0, action))


TASK = MujocoTask(
    id="ArmPegInsert",
    description="7-joint arm inserts a square peg with 1 mm clearance, sparse reward",
    model=model,
    frame_skip=5,
    max_episode_steps=80,
    observations=(
        Observation("peg_pose", tool_pose, tuple(f"peg_{n}" for n in POSE_NAMES), POSE_UNITS),
        Observation("peg_velocity", tool_velocity, tuple(f"peg_{n}" for n in VELOCITY_NAMES), RATE_UNITS),
        Observation("hole", hole_pose, ("hole_x", "hole_y", "hole_yaw"), ("m", "m", "rad")),
        Observation("lead", command_lead, tuple(f"lead_{n}" for n in POSE_NAMES), POSE_UNITS),
        *proprioception(),
    ),
    rewards=(Reward("inserted", success_reward),),
    terminated=ended,
    success=inserted,
    reset=reset,
    control=control,
    action_names=tuple(f"d{n}" for n in POSE_NAMES),
    fields=(*FIELDS, "actuator_force"),
    fresh=True,
    params={
        "clearance": 0.001,
        "hole_range": 0.05,
        "hole_yaw_range": float(np.deg2rad(15.0)),
        "hole_noise": 0.0,
        "start_range": 1.0,
        "friction": 0.4,
        "force_limit": 0.0,
        **CONTROL_PARAMS,
    },
    cameras=("front", "closeup", "wrist"),
    meaning=moved_pose,
)


def _hold_peg(spec: mujoco.MjSpec) -> None:
    """Fix the fingers on a peg and make its tip the tool centre point."""
    spec.delete(spec.equality("mimic"))
    spec.delete(spec.actuator("gripper"))
    for side, sign in (("left", 1.0), ("right", -1.0)):
        spec.delete(spec.joint(f"finger_{side}"))
        spec.body(f"finger_{side}").pos[1] = sign * PEG_SIDE / 2
    _add_peg(spec.body("hand"))
    spec.site("tcp").pos = [0.0, 0.0, PEG_TIP]


def _add_peg(hand: mujoco.MjsBody) -> None:
    """A box to look at, and for contact the spheres of its tip's corners and the capsules of its edges."""
    box, sphere, capsule = (getattr(mujoco.mjtGeom, f"mjGEOM_{n}") for n in ("BOX", "SPHERE", "CAPSULE"))
    half, brass = PEG_SIDE / 2, {"rgba": [0.83, 0.55, 0.16, 1.0], "mass": 0.05}
    hand.add_geom(
        name="peg", type=box, pos=[0, 0, PEG_TIP - PEG_LENGTH / 2], size=[half, half, PEG_LENGTH / 2], **brass
    )
    inset, unseen = half - PEG_EDGE_RADIUS, {"group": 3, "mass": 0.0, "size": [PEG_EDGE_RADIUS, 0, 0]}
    top, low, tip = PEG_TIP - HOLE_DEPTH, PEG_TIP - 0.005, PEG_TIP - PEG_EDGE_RADIUS
    for corner, (x_side, y_side) in enumerate(_CORNERS):
        x, y = x_side * inset, y_side * inset
        hand.add_geom(name=f"peg_corner{corner}", type=sphere, pos=[x, y, tip], **unseen)
        hand.add_geom(name=f"peg_edge{corner}", type=capsule, fromto=[x, y, top, x, y, low], **unseen)


def _add_fixture(spec: mujoco.MjSpec, inner: float) -> None:
    """Four walls around a square hole of half width `inner`, the first two along the whole of their side."""
    fixture = spec.worldbody.add_body(name="fixture", mocap=True, pos=[*CENTRE, 0.0])
    outer, half_height = FIXTURE_HALF_WIDTH, HOLE_DEPTH / 2
    thickness, middle = (outer - inner) / 2, (outer + inner) / 2
    shapes = (
        ((middle, 0.0), (thickness, outer)),
        ((-middle, 0.0), (thickness, outer)),
        ((0.0, middle), (inner, thickness)),
        ((0.0, -middle), (inner, thickness)),
    )
    for wall, (place, (half_x, half_y)) in zip(_WALLS, shapes, strict=True):
        fixture.add_geom(
            name=wall,
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=[*place, half_height],
            size=[half_x, half_y, half_height],
            rgba=[0.22, 0.36, 0.50, 1.0],
        )


def _let_touch(spec: mujoco.MjSpec, friction: float) -> None:
    for corner, (x_side, y_side) in enumerate(_CORNERS):
        for surface in ("table", *_WALLS):
            touch(spec, f"peg_corner{corner}", surface, friction)
        # Within the hole an edge meets the two walls beside it alone; the hand's y axis is the table's -y.
        for wall in (_WALLS[0 if x_side > 0 else 1], _WALLS[3 if y_side > 0 else 2]):
            touch(spec, f"peg_edge{corner}", wall, friction)


_WALLS = ("wall_x+", "wall_x-", "wall_y+", "wall_y-")
_CORNERS = ((1, 1), (-1, 1), (-1, -1), (1, -1))
"""Signs of the peg's corners in the hand's axes."""
_HOLE_NOISE_SHAPE = np.array([1.0, 1.0, 10.0])
"""The parameter `hole_noise` is the standard deviation in metres; the yaw's is ten times the number, in radians."""
