"""A MuJoCo environment as a robot: sensors out, commands in, by name and in SI units. Knows no middleware.

What it tells is what hardware would: joint encoders, an IMU on a floating base, and for a task whose observation holds
more than that (a tool's pose, where the hole is), those entries by name. What it takes is targets in the units of its
drives; a command is used in the control step after it arrived, and until a newer one comes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
import torch

from robo_rlft.envs.mujoco.engine import MujocoEnv
from robo_rlft.envs.randomise import RandomiseConfig
from robo_rlft.envs.registry import make
from robo_rlft.errors import ConfigError
from robo_rlft.export.robot.description import action_of
from robo_rlft.export.robot.faults import NOISE, Faults
from robo_rlft.export.robot.observation import told_names
from robo_rlft.rosmsg.labels import ordered
from robo_rlft.spec import CRITIC_KEY, IMAGE_PREFIX, POLICY_KEY

GRAVITY = np.array([0.0, 0.0, 9.81])
STEERING = ("command_vx", "command_vy", "command_yaw")
"""Entries of an observation that tell what somebody asks of the robot."""


@dataclass(frozen=True)
class Imu:
    """Of the base, in its own frame; the orientation is that of the base in the world, (x, y, z, w)."""

    orientation: np.ndarray
    angular_velocity: np.ndarray
    linear_acceleration: np.ndarray


@dataclass(frozen=True)
class Sensors:
    """Everything a robot tells at one time.

    Attributes:
        position, velocity: of the joints, in the order of `SimulatedRobot.joints`.
        effort: torques, or empty where nothing measures them.
        imu: None without a floating base.
        told: other entries, in the order of `SimulatedRobot.told`.
        steering: forward, left and yaw velocity somebody asks for; None where nobody does.
    """

    position: np.ndarray
    velocity: np.ndarray
    effort: np.ndarray
    imu: Imu | None
    told: np.ndarray
    steering: np.ndarray | None


class SimulatedRobot:
    """One robot.

    Args:
        env_id: a MuJoCo environment.
        faults: `noise` and `friction` are used here.
        seed: of the noise.
        params: of the task.

    Attributes:
        joints: names of what `Sensors` tells of joints.
        told: names of `Sensors.told`.
        commands: names of what a command must hold.
        period_s: of a control step.
        observed: the environment's own observation, by key: what a policy was trained on, without noise.

    Raises:
        ConfigError: the environment is none of MuJoCo's.
    """

    def __init__(
        self, env_id: str, faults: Faults | None = None, seed: int = 0, params: Mapping[str, Any] | None = None
    ) -> None:
        self._faults = faults or Faults()
        f = self._faults.friction
        env = make(env_id, num_envs=1, threads=1, randomise=RandomiseConfig(friction=[f, f]), **(params or {}))
        if not isinstance(env, MujocoEnv):
            raise ConfigError(f"{env_id} cannot be a simulated robot: choose a MuJoCo environment, e.g. QuadrupedFlat")
        self.env, self._rng = env, np.random.default_rng(seed)
        self.spec = env.robot
        self.period_s = 1.0 / env.robot.rate_hz
        self._action = action_of(env.robot)
        self.commands = self._action.names
        self._find_joints(env.simulation.model)
        self._find_entries()
        self._last_velocity = np.zeros(3)
        self.done = self.success = False
        self.steps, self.total = 0, 0.0

    def reset(self, seed: int) -> None:
        """Begin the episode of this seed."""
        obs, _ = self.env.reset(seed=[seed])
        self._keep(obs)
        self._last_velocity = self._base_velocity()
        self.done = self.success = False
        self.steps, self.total = 0, 0.0

    def sensors(self) -> Sensors:
        """What the robot measures now, with its noise."""
        data = self.env.simulation.data
        q, dq = self.env.simulation.field("qpos")[0], self.env.simulation.field("qvel")[0]
        force = data["actuator_force"][0].copy() if self._forces else np.zeros(0)
        return Sensors(
            position=self._noisy(q[self._q_at], "rad"),
            velocity=self._noisy(dq[self._v_at], "rad/s"),
            effort=force,
            imu=self._measured_imu(q, dq) if self.floating else None,
            told=self._noisy_told(),
            steering=self._entries(STEERING) if self.steered else None,
        )

    def step(self, command: Mapping[str, float]) -> None:
        """One control step under a command: targets by name, in the units of the drives.

        Raises:
            SpecError: a name is missing, or a value is not finite.
        """
        target = ordered(command, self.commands, "the command")
        action = torch.from_numpy(self._action.action(target).astype(np.float32))
        self._last_velocity = self._base_velocity()
        _, reward, terminated, truncated, info = self.env.step(action[None])
        self._keep(info["final_obs"])
        self.steps, self.total = self.steps + 1, self.total + float(reward[0])
        self.done, self.success = bool(terminated[0] or truncated[0]), self.success or bool(info["success"][0])

    def resting(self) -> dict[str, float]:
        """The command that keeps the robot as it starts: its default pose, or no motion."""
        return dict(zip(self.commands, self._action.offset.tolist(), strict=True))

    def close(self) -> None:
        """Free the simulation."""
        self.env.close()

    def _find_joints(self, model: mujoco.MjModel) -> None:
        wanted = tuple(joint.name for joint in self.spec.joints)
        moving = (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE))
        found = {model.joint(i).name: i for i in range(model.njnt) if model.jnt_type[i] in moving}
        self.joints = wanted or tuple(found)
        indices = [found[name] for name in self.joints]
        self._q_at, self._v_at = model.jnt_qposadr[indices], model.jnt_dofadr[indices]
        self.floating = bool(model.njnt and model.jnt_type[0] == int(mujoco.mjtJoint.mjJNT_FREE))
        actuators = tuple(model.actuator(i).name for i in range(model.nu))
        self._forces = actuators == self.joints and "actuator_force" in self.env.simulation.data

    def _find_entries(self) -> None:
        keys = [k for k in self.spec.observation if k != CRITIC_KEY and not k.startswith(IMAGE_PREFIX)]
        self._where = {
            name: (key, i) for key in reversed(keys) for i, name in enumerate(self.spec.observation[key].names)
        }
        self.told = tuple(dict.fromkeys(n for key in keys for n in told_names(self.spec.observation[key])))
        units = {
            name: self.spec.observation[key].units[i] if self.spec.observation[key].units else ""
            for name, (key, i) in self._where.items()
        }
        self._told_std = np.array([NOISE.get(units[name], 0.0) for name in self.told])
        self.steered = POLICY_KEY in keys and all(name in self._where for name in STEERING)

    def _keep(self, obs: Mapping[str, torch.Tensor]) -> None:
        self.observed = {key: value[0].cpu().numpy() for key, value in obs.items()}

    def _entries(self, names: Sequence[str]) -> np.ndarray:
        return np.array([self.observed[self._where[n][0]][self._where[n][1]] for n in names], np.float64)

    def _noisy(self, values: np.ndarray, unit: str) -> np.ndarray:
        return values + self._faults.noise * NOISE[unit] * self._rng.standard_normal(len(values))

    def _noisy_told(self) -> np.ndarray:
        spread = self._faults.noise * self._told_std
        return self._entries(self.told) + spread * self._rng.standard_normal(len(self.told))

    def _base_velocity(self) -> np.ndarray:
        return self.env.simulation.field("qvel")[0, :3].copy() if self.floating else np.zeros(3)

    def _measured_imu(self, q: np.ndarray, dq: np.ndarray) -> Imu:
        """Mean specific force over the last control step, as an accelerometer filtered to that rate shows it."""
        into_base = np.zeros(9)
        mujoco.mju_quat2Mat(into_base, q[3:7])
        force = (dq[:3] - self._last_velocity) / self.period_s + GRAVITY
        orientation = self._noisy(q[[4, 5, 6, 3]], "unit") if self._faults.noise else q[[4, 5, 6, 3]].copy()
        return Imu(
            orientation=orientation / np.linalg.norm(orientation),
            angular_velocity=self._noisy(dq[3:6], "rad/s"),
            linear_acceleration=into_base.reshape(3, 3).T @ force,
        )
