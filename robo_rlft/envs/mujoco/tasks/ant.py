"""Ant: a four-legged robot runs forward. Equal to Gymnasium's Ant-v5, contact forces included."""

from __future__ import annotations

from typing import Any

from robo_rlft.envs.mujoco.ranges import Outside, Range, Within
from robo_rlft.envs.mujoco.task import Array, MujocoTask, Observation, Params, Reward, State
from robo_rlft.envs.mujoco.tasks import locomotion as loco

FRAME_SKIP = 5
CONTROL_PERIOD_S = 0.01 * FRAME_SKIP
TORSO = 1
JOINTS = ("hip_1", "ankle_1", "hip_2", "ankle_2", "hip_3", "ankle_3", "hip_4", "ankle_4")
ACTUATORS = ("hip_4", "ankle_4", "hip_1", "ankle_1", "hip_2", "ankle_2", "hip_3", "ankle_3")
BODIES = ("torso", *(f"{part}_{leg}" for leg in range(1, 5) for part in ("leg", "upper", "lower")))

HEALTHY = (Range.at("qpos", 2, "healthy_z_range", closed=True),)
"""The torso's height is within its range. That the state is finite is the engine's NaN guard to see."""


def forward(xp: Any, state: State, action: Array, params: Params) -> Array:
    """Reward: mean speed of the torso along x over the control step, m/s."""
    return (state.data["xpos"][:, TORSO, 0] - state.previous["xpos"][:, TORSO, 0]) / CONTROL_PERIOD_S


def contact_forces(xp: Any, state: State, params: Params) -> Array:
    """External torque (N m) and force (N) on each body, clipped to `contact_force_range`."""
    return xp.clip(loco.contact_forces(xp, state, params), *params["contact_force_range"])


def contact_cost(xp: Any, state: State, action: Array, params: Params) -> Array:
    """Cost: sum of the squared, clipped contact forces."""
    forces = xp.clip(state.data["cfrc_ext"], *params["contact_force_range"])
    return xp.square(forces).reshape(forces.shape[0], -1).sum(-1)


TASK = MujocoTask(
    id="Ant",
    description="four-legged robot runs forward (Gymnasium Ant-v5)",
    model=loco.gymnasium_model("ant.xml"),
    frame_skip=FRAME_SKIP,
    max_episode_steps=1000,
    observations=(
        Observation(
            "position", loco.spatial_position, (*loco.FREE_JOINT_POSITION, *JOINTS), ("m", *[""] * 4, *["rad"] * 8)
        ),
        Observation(
            "velocity",
            loco.velocity,
            (*loco.FREE_JOINT_VELOCITY, *loco.rates(JOINTS)),
            (*["m/s"] * 3, *["rad/s"] * 11),
        ),
        Observation(
            "contact_forces", contact_forces, loco.per_body(BODIES, loco.WRENCH), (*["N m"] * 3, *["N"] * 3) * 13
        ),
    ),
    rewards=(
        Reward("forward", forward),
        Reward("alive", loco.alive(Within(HEALTHY))),
        Reward("effort", loco.effort, -0.5),
        Reward("contact", contact_cost, -5e-4),
    ),
    terminated=Outside(HEALTHY),
    reset=loco.normal_velocity_start,
    action_names=ACTUATORS,
    fields=("qpos", "qvel", "xpos", "cfrc_ext"),
    previous=("xpos",),
    params={"healthy_z_range": (0.2, 1.0), "contact_force_range": (-1.0, 1.0), "reset_noise_scale": 0.1},
    cameras=("track",),
)
