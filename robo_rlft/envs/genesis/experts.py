"""Scripted experts of the Panda's tasks, in the manner of `envs.mujoco.tasks.arm.experts`: no two episodes alike."""

from __future__ import annotations

import numpy as np

from robo_rlft.envs.base import BatchEnv
from robo_rlft.envs.genesis.tasks.panda import CUBE_HALF
from robo_rlft.envs.mujoco.tasks.arm.experts import ArmExpert, Style
from robo_rlft.errors import ConfigError, unknown_name


class ReachExpert(ArmExpert):
    """Goes to the goal and stays there."""

    tool = "tool"

    def draw_style(self, rng: np.random.Generator, num: int) -> Style:
        """Speed."""
        return {"speed": rng.uniform(0.5, 1.0, num)}

    def plan(self, seen: np.ndarray, pose: np.ndarray, style: Style) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See `ArmExpert.plan`."""
        goal = self.columns(seen, "goal_x", "goal_y", "goal_z")
        away = np.sqrt(((goal - pose[:, :3]) ** 2).sum(1))
        level = np.zeros((len(seen), 3))
        return np.concatenate((goal, level), 1), np.clip(away / 0.1, 0.0, 1.0), np.ones((len(seen), 1))


class LiftExpert(ArmExpert):
    """Goes over the cube, lowers, grasps and lifts."""

    tool = "tool"

    def draw_style(self, rng: np.random.Generator, num: int) -> Style:
        """Speed, hover height over the cube, alignment before lowering, height of grasp above the middle (m)."""
        return {
            "speed": rng.uniform(0.45, 0.9, num),
            "hover": rng.uniform(0.05, 0.09, num),
            "tolerance": rng.uniform(0.006, 0.012, num),
            "grip": rng.uniform(-0.006, 0.006, num),
        }

    def plan(self, seen: np.ndarray, pose: np.ndarray, style: Style) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See `ArmExpert.plan`."""
        cube = self.columns(seen, "cube_x", "cube_y", "cube_z")
        opening = self.columns(seen, "finger_opening")[:, 0]
        apart = np.hypot(pose[:, 0] - cube[:, 0], pose[:, 1] - cube[:, 1])
        within = (apart < 0.012) & (np.abs(pose[:, 2] - cube[:, 2] - style["grip"]) < 0.01)
        held = within & (opening < CUBE_HALF + 0.003)
        turn = self.columns(seen, "cube_cos4yaw", "cube_sin4yaw")
        yaw = np.arctan2(turn[:, 1], turn[:, 0]) / 4.0
        aligned = (apart < style["tolerance"]) & (np.abs(pose[:, 5] - yaw) < 0.12)
        fetch = cube[:, 2] + np.where(aligned | within, style["grip"], style["hover"])
        # Lifted by a command far above: `plan` limits its speed.
        z = np.where(held, pose[:, 2] + 0.1, fetch)
        xy = np.where(held[:, None], pose[:, :2], cube[:, :2])
        rz = np.where(held, pose[:, 5], yaw)
        grip = np.where(within, -1.0, 1.0)
        goal = np.concatenate((xy, z[:, None], np.zeros((len(seen), 2)), rz[:, None]), 1)
        return goal, np.clip(apart / 0.05, 0.2, 1.0), grip[:, None]


_EXPERTS: dict[str, type[ArmExpert]] = {"genesis:PandaReach": ReachExpert, "genesis:PandaLift": LiftExpert}


def make_expert(env_id: str, env: BatchEnv, seed: int) -> ArmExpert:
    """The expert of one of the Panda's tasks.

    Raises:
        ConfigError: `env_id` is none of them.
    """
    if env_id not in _EXPERTS:
        raise ConfigError(unknown_name("task of the Panda", env_id, _EXPERTS))
    return _EXPERTS[env_id](env, seed)
