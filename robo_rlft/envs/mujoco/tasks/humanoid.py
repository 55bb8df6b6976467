"""Humanoid: a three-dimensional biped walks forward. Equal to Gymnasium's Humanoid-v5, contact forces included."""

from __future__ import annotations

from typing import Any

from robo_rlft.envs.mujoco.ranges import Outside, Range, Within
from robo_rlft.envs.mujoco.task import Array, MujocoTask, Observation, Params, Reward, State
from robo_rlft.envs.mujoco.tasks import locomotion as loco

FRAME_SKIP = 5
CONTROL_PERIOD_S = 0.003 * FRAME_SKIP
ROOT_DOFS = 6
_ABDOMEN = ("abdomen_z", "abdomen_y", "abdomen_x")
_LEGS = tuple(f"{side}_{joint}" for side in ("right", "left") for joint in ("hip_x", "hip_z", "hip_y", "knee"))
_ARMS = tuple(f"{side}_{joint}" for side in ("right", "left") for joint in ("shoulder1", "shoulder2", "elbow"))
JOINTS = (*_ABDOMEN, *_LEGS, *_ARMS)
ACTUATORS = ("abdomen_y", "abdomen_z", "abdomen_x", *_LEGS, *_ARMS)
BODIES = (
    *("torso", "lwaist", "pelvis"),
    *(f"{side}_{part}" for side in ("right", "left") for part in ("thigh", "shin", "foot")),
    *(f"{side}_{part}" for side in ("right", "left") for part in ("upper_arm", "lower_arm")),
)
INERTIA = ("ixx", "iyy", "izz", "ixy", "ixz", "iyz", "mx", "my", "mz", "mass")
TWIST = ("wx", "wy", "wz", "vx", "vy", "vz")

HEALTHY = (Range.at("qpos", 2, "healthy_z_range"),)
"""The torso's height is within its range."""


def inertia(xp: Any, state: State, params: Params) -> Array:
    """Each body's inertia and mass about the tree's centre of mass."""
    return loco.flat(xp, state.data["cinert"])


def body_velocity(xp: Any, state: State, params: Params) -> Array:
    """Each body's angular and linear velocity in the frame of the tree's centre of mass."""
    return loco.flat(xp, state.data["cvel"])


def joint_torque(xp: Any, state: State, params: Params) -> Array:
    """Actuator torque on each joint."""
    return state.data["qfrc_actuator"][:, ROOT_DOFS:]


def forward(xp: Any, state: State, action: Array, params: Params) -> Array:
    """Reward: mean speed of the centre of mass along x over the control step, m/s."""
    mass = state.data["body_mass"]
    return (_centre_x(xp, mass, state.data["xipos"]) - _centre_x(xp, mass, state.previous["xipos"])) / CONTROL_PERIOD_S


def control_cost(xp: Any, state: State, action: Array, params: Params) -> Array:
    """Cost: sum of squared actuator commands."""
    return xp.square(state.data["ctrl"]).sum(-1)


def contact_cost(xp: Any, state: State, action: Array, params: Params) -> Array:
    """Cost: weighted sum of squared contact forces, bounded by `contact_cost_range`."""
    forces = state.data["cfrc_ext"]
    total = params["contact_cost_weight"] * xp.square(forces).reshape(forces.shape[0], -1).sum(-1)
    return xp.clip(total, *params["contact_cost_range"])


TASK = MujocoTask(
    id="Humanoid",
    description="humanoid walks forward (Gymnasium Humanoid-v5)",
    model=loco.gymnasium_model("humanoid.xml"),
    frame_skip=FRAME_SKIP,
    max_episode_steps=1000,
    observations=(
        Observation(
            "position", loco.spatial_position, (*loco.FREE_JOINT_POSITION, *JOINTS), ("m", *[""] * 4, *["rad"] * 17)
        ),
        Observation(
            "velocity",
            loco.velocity,
            (*loco.FREE_JOINT_VELOCITY, *loco.rates(JOINTS)),
            (*["m/s"] * 3, *["rad/s"] * 20),
        ),
        Observation(
            "inertia",
            inertia,
            loco.per_body(BODIES, INERTIA),
            (*["kg m2"] * 6, *["kg m"] * 3, "kg") * len(BODIES),
        ),
        Observation(
            "body_velocity",
            body_velocity,
            loco.per_body(BODIES, TWIST),
            (*["rad/s"] * 3, *["m/s"] * 3) * len(BODIES),
        ),
        Observation("joint_torque", joint_torque, tuple(f"{j}_torque" for j in JOINTS), ("N m",) * len(JOINTS)),
        Observation(
            "contact_forces",
            loco.contact_forces,
            loco.per_body(BODIES, loco.WRENCH),
            (*["N m"] * 3, *["N"] * 3) * len(BODIES),
        ),
    ),
    rewards=(
        Reward("forward", forward, 1.25),
        Reward("alive", loco.alive(Within(HEALTHY)), 5.0),
        Reward("control", control_cost, -0.1),
        Reward("contact", contact_cost, -1.0),
    ),
    terminated=Outside(HEALTHY),
    reset=loco.uniform_start,
    action_names=ACTUATORS,
    action_low=-0.4,
    action_high=0.4,
    fields=("qpos", "qvel", "ctrl", "xipos", "cinert", "cvel", "qfrc_actuator", "cfrc_ext", "body_mass"),
    previous=("xipos",),
    params={
        "healthy_z_range": (1.0, 2.0),
        "contact_cost_weight": 5e-7,
        "contact_cost_range": (float("-inf"), 10.0),
        "reset_noise_scale": 1e-2,
    },
    cameras=("track",),
)


def _centre_x(xp: Any, mass: Array, positions: Array) -> Array:
    """x of the centre of mass, [N], from masses [N, body] and bodies' centres [N, body, 3]."""
    # As Gymnasium's own einsum: the order of this sum decides the last bit.
    return xp.einsum("nb,nbj->nj", mass, positions)[:, 0] / mass.sum(-1)
