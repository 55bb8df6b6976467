"""What an episode remembers from step to step: its commands, the last actions, the feet's time in the air, its errors.

Commands of the whole episode are drawn at its start from the environment's own generator, so that stepping needs no
generator: a state is complete, and the same text runs compiled on a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from robo_rlft.envs.legged.view import Array, Params, View, as_number, constant

SEGMENTS = 8
"""Commands drawn for an episode; one that outlasts them begins again with the first."""

COMMAND_PARAMS: Params = {
    "command_vx": (-1.0, 1.0),
    "command_vy": (-0.5, 0.5),
    "command_yaw": (-1.0, 1.0),
    "command_s": 5.0,
    "stand_share": 0.1,
    "gait_s": 0.8,
}
"""Ranges of the commanded velocities (m/s, m/s, rad/s), how long each lasts, the share that asks to stand, and the
period of the gait clock."""


def draw_commands(rng: np.random.Generator, params: Params) -> np.ndarray:
    """The commands of one episode, [SEGMENTS, 3]."""
    low, high = np.transpose([params["command_vx"], params["command_vy"], params["command_yaw"]])
    commands = rng.uniform(low, high, (SEGMENTS, 3))
    stands = rng.uniform(size=(SEGMENTS, 1)) < params["stand_share"]
    return np.where(stands, 0.0, commands)


def begin(rng: np.random.Generator, params: Params, joints: int, feet: int) -> dict[str, np.ndarray]:
    """What one environment remembers at the start of an episode."""
    commands = draw_commands(rng, params)
    return {
        "steps": np.array(0),
        "commands": commands,
        "command": commands[0],
        "action": np.zeros(joints),
        "previous_action": np.zeros(joints),
        "air_time": np.zeros(feet),
        "velocity_error": np.array(0.0),
        "yaw_error": np.array(0.0),
    }


def carry(
    xp: Any, memory: Mapping[str, Array], before: View, action: Array, params: Params, period_s: float
) -> dict[str, Array]:
    """The memory for a control step that is about to be made.

    Args:
        xp: array namespace.
        memory: at the end of the last step.
        before: the view of that end.
        action: of the coming step, [N, J].
        params: of the task.
        period_s: length of a control step.
    """
    velocity, turn = tracking_errors(xp, before)
    made = as_number(xp, memory["steps"] > 0, velocity)
    return {
        "steps": memory["steps"] + 1,
        "command": before.next_command,
        "action": action,
        "previous_action": memory["action"],
        "air_time": (before.air_time + period_s) * as_number(xp, ~before.contact, before.air_time),
        "velocity_error": memory["velocity_error"] + made * velocity,
        "yaw_error": memory["yaw_error"] + made * turn,
    }


def command_of(xp: Any, memory: Mapping[str, Array], params: Params, period_s: float) -> Array:
    """The command for the step to come, [N, 3]."""
    commands = memory["commands"]
    lasts = max(round(params["command_s"] / period_s), 1)
    segment = (memory["steps"] // lasts) % SEGMENTS
    chosen = as_number(xp, segment[:, None] == constant(xp, tuple(range(SEGMENTS)), commands), commands)
    return (commands * chosen[:, :, None]).sum(1)


def phase_of(xp: Any, memory: Mapping[str, Array], params: Params, period_s: float) -> Array:
    """The gait clock, [N], from 0 to 1."""
    turns = memory["steps"] * (period_s / params["gait_s"])
    return turns - xp.floor(turns)


def tracking_errors(xp: Any, view: View) -> tuple[Array, Array]:
    """How far the step's velocity in the plane (m/s) and yaw rate (rad/s) are from the command, [N] each."""
    off = view.command[:, :2] - view.lin_vel[:, :2]
    return xp.sqrt((off * off).sum(-1)), xp.abs(view.command[:, 2] - view.ang_vel[:, 2])


def mean_errors(xp: Any, memory: Mapping[str, Array], view: View) -> tuple[Array, Array]:
    """Means of `tracking_errors` over the steps of the episode so far, [N] each; those of the start before any."""
    velocity, turn = tracking_errors(xp, view)
    made = as_number(xp, memory["steps"] > 0, velocity)
    steps = xp.where(memory["steps"] > 0, memory["steps"], 1)
    return (memory["velocity_error"] + made * velocity) / steps, (memory["yaw_error"] + made * turn) / steps


__all__ = ["COMMAND_PARAMS", "SEGMENTS", "begin", "carry", "command_of", "mean_errors", "phase_of", "tracking_errors"]
