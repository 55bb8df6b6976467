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
from robo_rlft.envs.maniskill.panda import joint_step
from robo_rlft.errors import ConfigError
from robo_rlft.spec import CRITIC_KEY, POLICY_KEY

CONTROL_MODES = ("pd_joint_delta_pos", "pd_ee_delta_pos", "pd_ee_delta_pose")
STEP_M = 0.1
"""Largest way of the hand in one step; what an action of 1 stands for where actions move the hand."""
_OPEN, _CLOSED = 1.0, -1.0
_QUARTER = np.pi / 2
_ARM_JOINTS = tuple(f"qpos/panda_joint{i}" for i in range(1, 8))

Points = Float[np.ndarray, "env 3"]


class PickCubeExpert:
    """Goes over the cube, lowers, grasps, and carries it to the goal.

    Args:
        env: `maniskill:PickCube-v1` with the Panda arm.
        seed: of everything it draws.

    Raises:
        ConfigError: another robot or control mode.
    """

    action_noise = 0.04
    """Standard deviation of white noise on the hand's motion, in units of `STEP_M`."""

    def __init__(self, env: BatchEnv, seed: int) -> None:
        self.mode, robot = env.robot.task["control_mode"], env.robot.task["robot"]
        if self.mode not in CONTROL_MODES or robot != "panda":
            raise ConfigError(
                f"the expert of {env.robot.env_id} moves the robot panda by {', '.join(CONTROL_MODES)}, and here "
                f"control_mode is {self.mode}, robot is {robot}: set env.params accordingly"
            )
        groups = env.robot.observation
        self._group = CRITIC_KEY if CRITIC_KEY in groups else POLICY_KEY
        self._column = {name: i for i, name in enumerate(groups[self._group].names)}
        self._scale, self._rng = np.array(env.robot.task["action_scale"]), np.random.default_rng(seed)
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
        axes = self._axes(seen, "tcp_pose")
        turn = self._turn(seen, axes)
        target, grip = self._plan(hand, cube, goal, held, turn)
        arrived = held & (np.linalg.norm(goal - cube, axis=1) < 0.02)
        move = STEP_M * (self._limited((target - hand) / STEP_M) + self._noise(hand, arrived))
        action = np.concatenate((self._arm(seen, move, axes, np.where(held, 0.0, turn)), grip[:, None]), axis=1)
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
        # A funnel: the further off or turned, the higher.
        turned = 0.0 if self.mode == "pd_ee_delta_pos" else 0.02 * np.abs(turn)
        off = np.linalg.norm(cube[:, :2] - hand[:, :2], axis=1) + turned
        height = np.clip(4.0 * (off - self._style["tolerance"]), 0.0, self._style["hover"])
        reach = np.concatenate((cube[:, :2], (cube[:, 2] + height)[:, None]), axis=1)
        around = np.linalg.norm(cube - hand, axis=1) < 0.015
        carry = hand + goal - cube
        return np.where(held[:, None], carry, reach), np.where(held | around, _CLOSED, _OPEN)

    def _arm(
        self, seen: np.ndarray, move: Points, axes: Float[np.ndarray, "env 3 3"], turn: Float[np.ndarray, " env"]
    ) -> Float[np.ndarray, "env arm"]:
        """The arm's part of the action that moves the hand by `move` and turns it."""
        if self.mode == "pd_ee_delta_pos":
            return move / self._scale[:3]
        spin = np.zeros_like(move)
        spin[:, 2] = 0.5 * turn
        if self.mode == "pd_ee_delta_pose":
            # ManiSkill turns the other way round, see `action_scale`.
            return np.concatenate((move / self._scale[:3], -spin / self._scale[3:6]), axis=1)
        spin += 0.5 * np.cross(axes[:, :, 2], (0.0, 0.0, -1.0))  # keep the fingers pointing down
        joints = seen[:, [self._column[name] for name in _ARM_JOINTS]]
        return joint_step(joints, np.concatenate((move, spin), axis=1)) / self._scale[:7]

    def _limited(self, move: Points) -> Points:
        move = self._style["gain"][:, None] * move
        largest = np.abs(move).max(axis=1, keepdims=True) + 1e-9
        return move * np.minimum(1.0, self._style["speed"][:, None] / largest)

    def _noise(self, like: Points, arrived: Bool[np.ndarray, " env"]) -> Points:
        """None where the cube is at its goal: the arm must come to rest there."""
        noise = self.action_noise * self._rng.standard_normal(like.shape)
        return np.where(arrived[:, None], 0.0, noise)

    def _turn(self, seen: np.ndarray, axes: Float[np.ndarray, "env 3 3"]) -> Float[np.ndarray, " env"]:
        """How far the hand must turn about the vertical to face a side of the cube, within an eighth of a circle."""
        x, mine = self._axes(seen, "obj_pose")[:, :, 0], axes[:, :, 0]
        turn = np.arctan2(x[:, 1], x[:, 0]) - np.arctan2(mine[:, 1], mine[:, 0])
        return (turn + _QUARTER / 2) % _QUARTER - _QUARTER / 2

    def _axes(self, seen: np.ndarray, name: str) -> Float[np.ndarray, "env 3 3"]:
        """A body's axes as columns, from its quaternion."""
        w, x, y, z = (seen[:, self._column[f"{name}/{axis}"]] for axis in ("qw", "qx", "qy", "qz"))
        rows = (
            *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
            *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
            *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
        )
        return np.stack(rows, axis=1).reshape(-1, 3, 3)

    def _point(self, seen: np.ndarray, name: str) -> Points:
        return seen[:, [self._column[f"{name}/{axis}"] for axis in "xyz"]]


def make_expert(name: str, env: BatchEnv, seed: int) -> PickCubeExpert:
    """See `envs.experts.make`."""
    return PickCubeExpert(env, seed)
