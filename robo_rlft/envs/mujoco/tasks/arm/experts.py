"""Scripted experts of the arm's tasks. They see what a policy sees, and no two demonstrations are alike.

Each episode draws its own speed, heights and tolerances; waypoints wander, actions are noisy and the hand pauses now
and then. The plan is a function of the observation alone, so that a policy can learn it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from robo_rlft.envs.base import BatchEnv, Obs
from robo_rlft.envs.mujoco.tasks.arm import peg_insert, pick_place
from robo_rlft.envs.mujoco.tasks.arm.control import POSE_NAMES
from robo_rlft.errors import ConfigError, unknown_name

Style = dict[str, np.ndarray]
"""How each environment's present episode is done: one array per trait, [N]."""


class ArmExpert(ABC):
    """Moves the pose command towards a waypoint chosen from the observation.

    Args:
        env: the environment it will act in.
        seed: of everything it draws.
    """

    tool: str
    """Prefix of the tool pose's names in the observation."""
    wander_m = 0.003
    """Standard deviation of the slow wandering of the waypoint, m (the rotation's is 5 rad per m of it)."""
    action_noise = 0.18
    """Standard deviation of white noise on the actions."""
    pause_probability = 0.01
    """Chance per control step of standing still for a while."""

    def __init__(self, env: BatchEnv, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._num, self._params = env.num_envs, env.robot.task
        spec = env.robot.observation["policy"]
        self._column = {name: i for i, name in enumerate(spec.names)}
        self._width = env.robot.action.shape[0]
        self._step = np.repeat([self._params["step_m"], self._params["step_rad"]], 3)
        self._wander = np.zeros((self._num, 6))
        self._pause = np.zeros(self._num, np.int64)
        self._style = self.draw_style(self._rng, self._num)

    def reset(self, ids: Sequence[int] | None = None) -> None:
        """See `Expert.reset`."""
        rows = np.arange(self._num) if ids is None else np.asarray(ids, np.int64)
        for name, values in self.draw_style(self._rng, len(rows)).items():
            self._style[name][rows] = values
        self._wander[rows], self._pause[rows] = 0.0, 0

    def act(self, obs: Obs) -> Float[Tensor, "env action"]:
        """See `Expert.act`."""
        seen = obs["policy"].detach().cpu().numpy().astype(float)
        pose = self.columns(seen, *(f"{self.tool}_{n}" for n in POSE_NAMES))
        command = pose + self.columns(seen, *(f"lead_{n}" for n in POSE_NAMES))
        goal, wobble, others = self.plan(seen, pose, self._style)
        self._advance_wander()
        wished = (goal + wobble[:, None] * self._wander - command) / self._step
        action = np.concatenate((self._limited(wished), others), 1)
        scale = self.action_noise * (0.7 + 0.3 * wobble[:, None]) * self._noisy_entries()
        action += scale * self._rng.standard_normal(action.shape)
        action[:, :6] *= self._moving()[:, None]
        return torch.from_numpy(np.clip(action, -1.0, 1.0)).to(obs["policy"])

    @abstractmethod
    def draw_style(self, rng: np.random.Generator, num: int) -> Style:
        """Traits of `num` new episodes; `speed` in (0, 1] is one of them."""

    @abstractmethod
    def plan(self, seen: np.ndarray, pose: np.ndarray, style: Style) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where the command shall go [N, 6], how much it may wander there [N], further action entries [N, A - 6]."""

    def columns(self, seen: Float[np.ndarray, "env obs"], *names: str) -> Float[np.ndarray, "env name"]:
        """Entries of the observation by name."""
        return seen[:, [self._column[name] for name in names]]

    def _limited(self, wished: np.ndarray) -> np.ndarray:
        """Scale translation and rotation each to the episode's speed, keeping their directions."""
        speed = self._style["speed"][:, None]
        parts = (wished[:, :3], wished[:, 3:])
        return np.concatenate([p * np.minimum(1.0, speed / (np.abs(p).max(1, keepdims=True) + 1e-9)) for p in parts], 1)

    def _advance_wander(self) -> None:
        scale = self.wander_m * np.repeat([1.0, 5.0], 3)
        keep = 0.9
        drive = np.sqrt(1.0 - keep**2) * self._rng.standard_normal(self._wander.shape)
        self._wander = keep * self._wander + scale * drive

    def _noisy_entries(self) -> np.ndarray:
        return np.arange(self._width) < 6

    def _moving(self) -> Bool[np.ndarray, " env"]:
        starts = (self._pause == 0) & (self._rng.random(self._num) < self.pause_probability)
        self._pause = np.where(starts, self._rng.integers(3, 9, self._num), np.maximum(self._pause - 1, 0))
        return self._pause == 0


class PegExpert(ArmExpert):
    """Goes over the hole, lines up, lowers; corrects sideways while it presses, and lifts when far off."""

    tool = "peg"

    def draw_style(self, rng: np.random.Generator, num: int) -> Style:
        """Speed, hover height over the rim, misalignment at which it starts to lower and lead while lowering (m)."""
        return {
            "speed": rng.uniform(0.45, 0.95, num),
            "hover": rng.uniform(0.006, 0.025, num),
            "tolerance": rng.uniform(0.0006, 0.0015, num),
            "push": rng.uniform(0.003, 0.005, num),
        }

    def plan(self, seen: np.ndarray, pose: np.ndarray, style: Style) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See `ArmExpert.plan`."""
        hole = self.columns(seen, "hole_x", "hole_y", "hole_yaw")
        turned = np.abs(hole[:, 2] - pose[:, 5])
        off = np.abs(hole[:, :2] - pose[:, :2]).max(1) + turned * peg_insert.PEG_SIDE / 2
        above = pose[:, 2] - peg_insert.HOLE_DEPTH
        # A funnel: the further off, the higher; within the tolerance, or once inside, down.
        funnel = np.minimum(style["hover"], 0.002 + 4.0 * (off - style["tolerance"]))
        # Near the rim its rounded edges still find the way: no reason to lift again for a little more.
        close = style["tolerance"] + np.clip(0.003 - above, 0.0, 0.0012)
        height = np.where((off < close) | (above < -0.003), above - style["push"], funnel)
        upright = np.zeros((len(seen), 2))
        goal = np.concatenate((hole[:, :2], (peg_insert.HOLE_DEPTH + height)[:, None], upright, hole[:, 2:]), 1)
        wobble = np.clip(off / 0.03, 0.2, 1.0)
        return goal, wobble, np.empty((len(seen), 0))


class CubeExpert(ArmExpert):
    """Goes over the cube, lowers, grasps, lifts, carries it over the plinth, sets it down and lets go."""

    tool = "tool"

    def draw_style(self, rng: np.random.Generator, num: int) -> Style:
        """Speed, hover height over cube and plinth, alignment before lowering, height of grasp above the middle (m)."""
        return {
            "speed": rng.uniform(0.45, 0.9, num),
            "hover": rng.uniform(0.05, 0.09, num),
            "tolerance": rng.uniform(0.006, 0.012, num),
            "grip": rng.uniform(-0.006, 0.006, num),
        }

    def plan(self, seen: np.ndarray, pose: np.ndarray, style: Style) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See `ArmExpert.plan`."""
        cube = self.columns(seen, "cube_x", "cube_y", "cube_z")
        goal = self.columns(seen, "goal_x", "goal_y")
        opening = self.columns(seen, "finger_opening")[:, 0]
        reach = np.stack((_apart(pose, cube), np.abs(pose[:, 2] - cube[:, 2] - style["grip"])), 1)
        within = (reach < (0.012, 0.01)).all(1)
        resting = pick_place.PLINTH_HEIGHT + pick_place.CUBE_HALF
        done = (_apart(cube, goal) < 0.02) & (np.abs(cube[:, 2] - resting) < 0.006)
        held = within & (opening < pick_place.CUBE_HALF + 0.003) & ~done

        turn = self.columns(seen, "cube_cos4yaw", "cube_sin4yaw")
        yaw = np.arctan2(turn[:, 1], turn[:, 0]) / 4.0
        aligned = (_apart(pose, cube) < style["tolerance"]) & (np.abs(pose[:, 5] - yaw) < 0.12)
        fetch_z = cube[:, 2] + np.where(aligned | within, style["grip"], style["hover"])
        carry_z = resting + style["hover"]
        over = _apart(pose, goal) < style["tolerance"]
        place_z = np.where(over, resting + style["grip"] - 0.004, carry_z)
        raised = over | (pose[:, 2] > carry_z - 0.03)
        place_xy = np.where(raised[:, None], goal, pose[:, :2])

        xy = np.where(held[:, None], place_xy, np.where(done[:, None], pose[:, :2], cube[:, :2]))
        z = np.where(held, place_z, np.where(done, pose[:, 2] + 0.02 * (opening > 0.028), fetch_z))
        rz = np.where(held | done, pose[:, 5], yaw)
        level = np.zeros((len(seen), 2))
        grip = np.where((within & ~done), -1.0, 1.0)
        wobble = np.where(over & held, 0.2, np.clip(_apart(pose, xy) / 0.05, 0.2, 1.0))
        return np.concatenate((xy, z[:, None], level, rz[:, None]), 1), wobble, grip[:, None]


def _apart(a: np.ndarray, b: np.ndarray) -> Float[np.ndarray, " env"]:
    """Horizontal distance, m."""
    return np.hypot(a[:, 0] - b[:, 0], a[:, 1] - b[:, 1])


_EXPERTS: dict[str, type[ArmExpert]] = {"ArmPegInsert": PegExpert, "ArmPickPlace": CubeExpert}


def make_expert(env_id: str, env: BatchEnv, seed: int) -> ArmExpert:
    """The expert of one of the arm's tasks.

    Raises:
        ConfigError: `env_id` is none of them.
    """
    if env_id not in _EXPERTS:
        raise ConfigError(unknown_name("arm task", env_id, _EXPERTS))
    return _EXPERTS[env_id](env, seed)
