"""Small tasks that compile in seconds: a cart without contacts, and a ball that rolls on the floor."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np

from robo_rlft.envs.mujoco.task import Array, MujocoTask, Observation, Params, Reward, State

CART = """
<mujoco>
  <option timestep="0.01"/>
  <worldbody>
    <camera name="side" pos="0 -3 1" xyaxes="1 0 0 0 0 1"/>
    <light pos="0 -1 3"/>
    <body name="cart">
      <joint name="x" type="slide" axis="1 0 0"/><geom name="box" type="box" size=".1 .1 .1" mass="2"/>
    </body>
  </worldbody>
  <actuator><motor name="push" joint="x"/></actuator>
</mujoco>
"""

BALL = """
<mujoco>
  <option timestep="0.005" tolerance="1e-14"/>
  <worldbody>
    <geom name="floor" type="plane" size="9 9 1"/>
    <body name="ball" pos="0 0 .12">
      <joint name="x" type="slide" axis="1 0 0"/>
      <joint name="z" type="slide" axis="0 0 1"/>
      <joint name="roll" type="hinge" axis="0 1 0" damping=".01"/>
      <geom type="sphere" size=".1" mass="1"/>
      <site name="rim" pos=".1 0 0"/>
    </body>
  </worldbody>
  <actuator><motor joint="roll" gear="2"/></actuator>
  <sensor><framelinvel objtype="site" objname="rim"/></sensor>
</mujoco>
"""

CHASE = BALL.replace("<option ", '<option integrator="implicitfast" ').replace(
    '<motor joint="roll" gear="2"/>', '<velocity joint="roll" kv=".5" forcerange="-.8 .8"/>'
)
"""Turned by a servo that is at its limit of force most of the time."""


def start(rng: np.random.Generator, model: mujoco.MjModel, params: Params) -> Mapping[str, np.ndarray]:
    qpos = rng.uniform(-params["spread"], params["spread"], model.nq)
    goal = rng.uniform(params["end"], 2 * params["end"], 1)
    return {"qpos": qpos, "goal": goal, "poison": np.full(1, np.inf)}


def motion(xp: Any, state: State, params: Params) -> Array:
    return xp.concatenate((state.data["qpos"], state.data["qvel"], state.variables["goal"]), -1)


def moved(xp: Any, state: State, action: Array, params: Params) -> Array:
    """How far it came in this step; not a number at all beyond the variable `poison`, which a saved state may set."""
    x = state.data["qpos"][:, 0]
    return params["pay"] * xp.where(x < state.variables["poison"][:, 0], x - state.previous["qpos"][:, 0], xp.nan)


def beyond(xp: Any, state: State, params: Params) -> Array:
    return state.data["qpos"][:, 0] > state.variables["goal"][:, 0]


def halfway(xp: Any, state: State, params: Params) -> Array:
    return state.data["qpos"][:, 0] > state.variables["goal"][:, 0] / 2


def forces(xp: Any, state: State, params: Params) -> Array:
    """What the floor does to the ball, and where the ball is."""
    return xp.concatenate((state.data["cfrc_ext"][:, 1], state.data["xpos"][:, 1]), -1)


def rim(xp: Any, state: State, params: Params) -> Array:
    return xp.concatenate((state.data["site_xpos"][:, 0], state.data["sensordata"], state.data["actuator_force"]), -1)


def chased(xp: Any, state: State, action: Array, params: Params) -> Mapping[str, Array]:
    """A control law: a rate to turn at, and a goal that comes nearer."""
    return {"ctrl": 20.0 * action - 0.1 * state.data["qvel"][:, 2:3], "goal": state.variables["goal"] * 0.99}


CART_TASK = MujocoTask(
    id="Cart",
    model=lambda params: mujoco.MjModel.from_xml_string(CART),
    frame_skip=5,
    max_episode_steps=30,
    observations=(Observation("motion", motion, ("x", "speed", "goal"), ("m", "m/s", "m")),),
    rewards=(Reward("moved", moved, 3.0), Reward("effort", lambda xp, s, a, p: xp.square(a).sum(-1), -0.1)),
    terminated=beyond,
    success=halfway,
    reset=start,
    action_names=("push",),
    previous=("qpos",),
    action_low=-4.0,
    action_high=4.0,
    params={"spread": 0.01, "end": 0.2, "pay": 1.0},
    metrics={"to_go": lambda xp, state, params: (state.variables["goal"] - state.data["qpos"][:, :1])[:, 0]},
    cameras=("side",),
)

BALL_TASK = dataclasses.replace(
    CART_TASK,
    id="Ball",
    model=lambda params: mujoco.MjModel.from_xml_string(BALL),
    observations=(
        Observation("motion", motion, ("x", "z", "angle", "vx", "vz", "spin", "goal")),
        Observation("forces", forces, ("tx", "ty", "tz", "fx", "fy", "fz", "px", "py", "pz"), group="critic"),
    ),
    fields=("qpos", "qvel", "cfrc_ext", "xpos"),
    action_low=-1.0,
    action_high=1.0,
)
"""Reads the forces of the last substep, and what lags the state by a substep."""

CHASE_TASK = dataclasses.replace(
    BALL_TASK,
    id="Chase",
    model=lambda params: mujoco.MjModel.from_xml_string(CHASE),
    observations=(*BALL_TASK.observations[:1], Observation("rim", rim, ("x", "y", "z", "vx", "vy", "vz", "torque"))),
    fields=("qpos", "qvel", "site_xpos", "sensordata", "actuator_force"),
    control=chased,
    fresh=True,
    variants={"far": {"end": 0.3}, "near": {"end": 0.1, "pay": 2.0}},
)
"""Has a control law and variants, and reads derived fields at the very state."""
