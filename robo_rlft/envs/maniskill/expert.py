"""A scripted expert of PickCube: demonstrations without a motion planner, and so without its numpy 1.

What it does is a function of the observation alone, up to noise, so that a policy can learn it; each episode has its
own speed, heights and tolerances.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from robo_rlft.envs.base import BatchEnv, Obs
from robo_rlft.errors import ConfigError
from robo_rlft.spec import CRITIC_KEY, POLICY_KEY

CONTROL_MODES = ("pd_ee_delta_pos", "pd_ee_delta_pose")
_STEP_M = 0.1
"""Translation that an action of 1 stands for."""
_STEP_RAD = -0.1
"""Rotation that an action of 1 stands for; ManiSkill scales rotations by their lower bound."""
_OPEN, _CLOSED = 1.0, -1.0
_QUARTER = np.pi / 2

Points = Float[np.ndarray, "env 3"]


class PickCubeExpert:
    """Goes over the cube, lowers, grasps, and carries it to the goal.

    Args:
        env: `maniskill:PickCube-v1`, controlled by the pose of its hand.
        seed: of everything it draws.

    Raises:
        ConfigError: the control mode is another.
    """

    action_noise = 0.04
    """Standard deviation of white noise on the actions."""

    def __init__(self, env: BatchEnv, seed: int) -> None:
        mode = env.robot.task.get("control_mode")
        if mode not in CONTROL_MODES:
            raise ConfigError(
                f"the expert of {env.robot.env_id} moves the hand, and control_mode is {mode}: "
                f"set env.params.control_mode={CONTROL_MODES[0]} or {CONTROL_MODES[1]}"
            )
        groups = env.robot.observation
        self._group = CRITIC_KEY if CRITIC_KEY in groups else POLICY_KEY
        self._column = {name: i for i, name in enumerate(groups[self._group].names)}
        self._width, self._rng = env.robot.action.shape[0], np.random.default_rng(seed)
        self._style = self._draw(env.num_envs)

    def reset(self, ids: Sequence[int] | None = None) -> None:
        """See `Expert.reset`."""
        rows = np.arange(len(self._style["speed"])) if ids is None else np.asarray(ids, np.int64)
        for name, values in self._draw(len(rows)).items():
            self._style[name][rows] = values

    def act(self, obs: Obs) -> Float[Tensor, "env action"]:
        """See `Expert.act`."""
        seen = obs[self._group].detach().cpu().numpy().astype(float)
        hand, cube, goal = (self._point(seen, name) for name in ("tcp_pose", "obj_pose", "goal_pos"))
        held = seen[:, self._column["is_grasped"]] > 0.5
        turn = self._turn(seen)
        target, grip = self._plan(hand, cube, goal, held, turn)
        move = self._style["gain"][:, None] * (target - hand) / _STEP_M
        action = np.zeros((len(seen), self._width))
        action[:, :3] = self._limited(move)
        if self._width == 7:
            action[:, 5] = np.where(held, 0.0, np.clip(0.5 * turn / _STEP_RAD, -1.0, 1.0))
        action[:, :-1] += self._noise(action[:, :-1], held & (np.linalg.norm(goal - cube, axis=1) < 0.02))
        action[:, -1] = grip
        return torch.from_numpy(np.clip(action, -1.0, 1.0)).to(obs[self._group])

    def _draw(self, num: int) -> dict[str, np.ndarray]:
        """Speed, gain, height over the cube (m), misalignment at which it starts to lower (m)."""
        return {
            "speed": self._rng.uniform(0.5, 0.9, num),
            "gain": self._rng.uniform(0.7, 1.0, num),
            "hover": self._rng.uniform(0.04, 0.08, num),
            "tolerance": self._rng.uniform(0.006, 0.012, num),
        }

    def _plan(
        self, hand: Points, cube: Points, goal: Points, held: Bool[np.ndarray, " env"], turn: Float[np.ndarray, " env"]
    ) -> tuple[Points, Float[np.ndarray, " env"]]:
        """Where the hand shall be and whether it is open."""
        off = np.linalg.norm(cube[:, :2] - hand[:, :2], axis=1)
        # A funnel: the further off or turned, the higher.
        off = off + (0.02 * np.abs(turn) if self._width == 7 else 0.0)
        height = np.clip(4.0 * (off - self._style["tolerance"]), 0.0, self._style["hover"])
        reach = np.concatenate((cube[:, :2], (cube[:, 2] + height)[:, None]), axis=1)
        around = np.linalg.norm(cube - hand, axis=1) < 0.015
        carry = hand + goal - cube
        return np.where(held[:, None], carry, reach), np.where(held | around, _CLOSED, _OPEN)

    def _limited(self, move: Points) -> Points:
        largest = np.abs(move).max(axis=1, keepdims=True) + 1e-9
        return move * np.minimum(1.0, self._style["speed"][:, None] / largest)

    def _noise(self, like: np.ndarray, arrived: Bool[np.ndarray, " env"]) -> np.ndarray:
        """None where the cube is at its goal: the arm must come to rest there."""
        noise = self.action_noise * self._rng.standard_normal(like.shape)
        noise[:, 3:5] = 0.0
        return np.where(arrived[:, None], 0.0, noise)

    def _turn(self, seen: np.ndarray) -> Float[np.ndarray, " env"]:
        """How far the hand must turn about the vertical to face a side of the cube, within an eighth of a circle."""
        turn = self._yaw(seen, "obj_pose") - self._yaw(seen, "tcp_pose")
        return (turn + _QUARTER / 2) % _QUARTER - _QUARTER / 2

    def _yaw(self, seen: np.ndarray, name: str) -> Float[np.ndarray, " env"]:
        """Direction of a body's x axis seen from above."""
        w, x, y, z = (seen[:, self._column[f"{name}/{axis}"]] for axis in ("qw", "qx", "qy", "qz"))
        return np.arctan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z))

    def _point(self, seen: np.ndarray, name: str) -> Points:
        return seen[:, [self._column[f"{name}/{axis}"] for axis in "xyz"]]


def make_expert(name: str, env: BatchEnv, seed: int) -> PickCubeExpert:
    """See `envs.experts.make`."""
    return PickCubeExpert(env, seed)
