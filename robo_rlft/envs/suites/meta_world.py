"""Meta-World: a Sawyer arm and fifty tasks. `metaworld:reach-v3` is one, `metaworld:MT10` and `metaworld:MT50` are
sets.

In a set, each task is a variant of the environment, and the observation ends with the number of the task, one-hot.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import mujoco
import numpy as np
import torch
from jaxtyping import Float

from robo_rlft.envs.base import BatchEnv
from robo_rlft.envs.images import ImagesConfig
from robo_rlft.envs.pool.env import PoolEnv
from robo_rlft.envs.pool.single import Frame, Outcome
from robo_rlft.envs.suites.bundle import Bundle
from robo_rlft.envs.suites.meta_world_words import INSTRUCTIONS
from robo_rlft.envs.suites.quiet import quiet
from robo_rlft.envs.suites.simulated import SimulatedEnv
from robo_rlft.errors import ConfigError, unknown_name
from robo_rlft.spec import POLICY_KEY, ArraySpec, RobotSpec

LONGEST = 500
"""Steps after which Meta-World itself refuses to go on."""
_SETS = ("MT10", "MT50")
_NOW = (
    *("hand_x", "hand_y", "hand_z", "gripper"),
    *(f"object{i}_{n}" for i in (1, 2) for n in ("x", "y", "z", "qx", "qy", "qz", "qw")),
)
NAMES = (*_NOW, *(f"before_{name}" for name in _NOW), "goal_x", "goal_y", "goal_z")
"""Entries of the observation: now, one step before, and the goal."""


def make_env(
    task: str,
    num_envs: int,
    *,
    seed: int | None,
    device: str | torch.device,
    threads: int,
    dtype: torch.dtype,
    images: ImagesConfig | None = None,
    workers: int | None = None,
    max_episode_steps: int = LONGEST,
) -> BatchEnv:
    """N copies of a Meta-World task, or of a set of them.

    Args:
        task: as in `reach-v3`, or MT10 or MT50.
        num_envs: see `envs.make`, as `seed`, `device`, `threads`, `dtype` and `images`.
        seed: as there.
        device: as there.
        threads: as there.
        dtype: as there.
        images: as there.
        workers: processes that share the environments; 0 steps them in this one, None chooses.
        max_episode_steps: of an episode, 500 at most.
    """
    env_id = f"metaworld:{task}"
    make: Any = partial(MetaWorldTask, task, env_id, images, max_episode_steps)
    if task in _SETS:
        make = partial(MetaWorldSet, task, env_id, images, max_episode_steps)
    pool = {"seed": seed, "device": device, "threads": threads, "dtype": dtype, "workers": workers}
    return PoolEnv(make, num_envs, env_id=env_id, **pool)


def tasks() -> Sequence[str]:
    """The fifty tasks and the sets."""
    return sorted([*_classes(), *_SETS])


class MetaWorldTask(SimulatedEnv):
    """One task. The seed draws where objects and goal are, from the task's whole range.

    Args:
        task: its name.
        env_id: what the environment is called here.
        images: see `make_env`, as `max_episode_steps`.
        max_episode_steps: as there.

    Raises:
        ConfigError: no such task, or too many steps.
    """

    has_success = True
    has_expert = True
    default_camera = "corner"
    hung = ("corner", "corner2", "corner3", "corner4")

    def __init__(
        self, task: str, env_id: str, images: ImagesConfig | None = None, max_episode_steps: int = LONGEST
    ) -> None:
        if task not in _classes():
            raise ConfigError(unknown_name("task", task, tasks()))
        if not 0 < max_episode_steps <= LONGEST:
            raise ConfigError(f"max_episode_steps is {max_episode_steps}: Meta-World allows 1 to {LONGEST}")
        self.env = _classes()[task]()
        self.env._set_task_called, self.env._freeze_rand_vec = True, False
        self.env.seeded_rand_vec, self.env._partially_observable = True, False
        del self.env.sawyer_observation_space  # computed before the goal was to be seen, and kept
        self.instruction = INSTRUCTIONS[task]
        self._expert = _experts()[task]()
        self.reset(0, 0)
        super().__init__(images, env_id)
        self.robot = RobotSpec(
            env_id=env_id,
            observation=self.observation(NAMES),
            action=ArraySpec((4,), names=("move_x", "move_y", "move_z", "close"), low=(-1.0,) * 4, high=(1.0,) * 4),
            rate_hz=1.0 / self.env.dt,
            max_episode_steps=max_episode_steps,
            task={"task": task},
        )

    @property
    def physics(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        """The simulation."""
        return self.env.model, self.env.data

    @property
    def parts(self) -> Sequence[Any]:
        """The environment."""
        return (self.env,)

    @property
    def constant(self) -> Sequence[type]:
        """What draws."""
        return (type(self.env.mujoco_renderer),)

    def reset(self, seed: int, variant: int) -> None:
        """See `SingleEnv.reset`."""
        self.env.seed(seed)
        self._vector, _ = self.env.reset()

    def step(self, action: Float[np.ndarray, " action"]) -> Outcome:
        """See `SingleEnv.step`."""
        self._vector, reward, terminated, _, info = self.env.step(np.array(action, np.float32))
        return Outcome(float(reward), terminated=bool(terminated), success=bool(info["success"]))

    def expert_action(self) -> Float[np.ndarray, " action"]:
        """Meta-World's own scripted policy of this task."""
        return np.clip(self._expert.get_action(self._vector), -1.0, 1.0)


class MetaWorldSet(Bundle):
    """Several tasks, one at a time; observations end with the task's number, one-hot.

    Args:
        name: MT10 or MT50.
        env_id: what the environment is called here.
        images: see `make_env`, as `max_episode_steps`.
        max_episode_steps: as there.
    """

    def __init__(
        self, name: str, env_id: str, images: ImagesConfig | None = None, max_episode_steps: int = LONGEST
    ) -> None:
        tasks = tuple(_members(name))
        super().__init__(tasks, [partial(MetaWorldTask, task, env_id, images, max_episode_steps) for task in tasks])
        names = (*NAMES, *(f"is_{task}" for task in tasks))
        seen = {**self.robot.observation, POLICY_KEY: ArraySpec((len(names),), names=names)}
        self.robot = replace(self.robot, observation=seen, task={"set": name})

    def observe(self) -> Frame:
        """See `SingleEnv.observe`."""
        frame = super().observe()
        task = np.eye(len(self.variants))[self.index]
        return {**frame, POLICY_KEY: np.concatenate([frame[POLICY_KEY], task])}


@cache
def _classes() -> dict[str, Any]:
    with quiet():
        env_dict = importlib.import_module("metaworld.env_dict")
        sawyer_xyz_env = importlib.import_module("metaworld.sawyer_xyz_env")
    sawyer_xyz_env.SawyerMocapBase.reset_mocap_welds = _reset_mocap_welds
    return dict(env_dict.ALL_V3_ENVIRONMENTS)


@cache
def _experts() -> dict[str, Any]:
    policies = importlib.import_module("metaworld.policies").ENV_POLICY_MAP
    # They ask for more than the bounds allow, and say so in every process; the bounds are kept here.
    warnings.filterwarnings("ignore", r"Constant\(s\) may be too high", UserWarning)
    return dict(policies)


def _members(name: str) -> list[str]:
    _classes()
    env_dict = importlib.import_module("metaworld.env_dict")
    return list({"MT10": env_dict.MT10_V3, "MT50": env_dict.MT50_V3}[name])


def _reset_mocap_welds(env: Any) -> None:
    """Meta-World 3's own method assigns rows of eleven numbers; MuJoCo's have grown to twelve since 3.3."""
    for kind, row in zip(env.model.eq_type, env.model.eq_data, strict=True):
        if kind == mujoco.mjtEq.mjEQ_WELD:
            row[:11] = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 5.0)
