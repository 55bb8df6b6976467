"""OGBench's manipulation environments: `ogbench:cube-single-v0`, `ogbench:scene-v0`, `ogbench:puzzle-3x3-v0` and more.

Those without `singletask` in their name are told a goal: their tasks are variants, and `policy` ends with the
observation that is to be reached. The others have one task each, and the observation alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import gymnasium
import mujoco
import numpy as np
import torch
from jaxtyping import Float

from robo_rlft.envs.base import BatchEnv
from robo_rlft.envs.images import ImagesConfig
from robo_rlft.envs.mujoco.render import FULL
from robo_rlft.envs.pool.env import PoolEnv
from robo_rlft.envs.pool.single import Frame, Outcome
from robo_rlft.envs.suites.ogbench_expert import Oracles
from robo_rlft.envs.suites.quiet import quiet
from robo_rlft.envs.suites.simulated import SimulatedEnv
from robo_rlft.errors import ConfigError, unknown_name
from robo_rlft.spec import ArraySpec, RobotSpec

_VISUAL = "visual-"
_ARM = (
    *(f"joint{i}" for i in range(1, 7)),
    *(f"joint{i}_rate" for i in range(1, 7)),
    *("hand_x", "hand_y", "hand_z", "hand_yaw_cos", "hand_yaw_sin", "gripper_opening", "gripper_contact"),
)
"""The first entries of every observation; those after them are the scene's."""
_ACTION = ("move_x", "move_y", "move_z", "turn", "close")


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
    max_episode_steps: int = 0,
) -> BatchEnv:
    """N copies of a manipulation environment of OGBench.

    Args:
        task: its id there. `visual-` ones take `front_pixels` at 64 x 64 where no camera is named.
        num_envs: see `envs.make`, as `seed`, `device`, `threads`, `dtype` and `images`.
        seed: as there.
        device: as there.
        threads: as there.
        dtype: as there.
        images: as there.
        workers: processes that share the environments; 0 steps them in this one, None chooses.
        max_episode_steps: 0: OGBench's own.
    """
    env_id = f"ogbench:{task}"
    make = partial(OgbenchEnv, task, env_id, images, max_episode_steps)
    pool = {"seed": seed, "device": device, "threads": threads, "dtype": dtype, "workers": workers}
    return PoolEnv(make, num_envs, env_id=env_id, **pool)


def tasks() -> Sequence[str]:
    """Ids of the manipulation environments, with goals told and with one task each."""
    with quiet():
        import ogbench.manipspace  # noqa: F401 - registers them

    return sorted(i for i, spec in gymnasium.registry.items() if "ogbench.manipspace" in str(spec.entry_point))


class OgbenchEnv(SimulatedEnv):
    """One manipulation environment.

    Args:
        task: its id in OGBench.
        env_id: what the environment is called here.
        images: see `make_env`, as `max_episode_steps`.
        max_episode_steps: as there.

    Raises:
        ConfigError: there is no such environment, or its goal is an image.
    """

    has_success = True
    has_expert = True
    default_camera = "front"
    look = FULL

    def __init__(self, task: str, env_id: str, images: ImagesConfig | None = None, max_episode_steps: int = 0) -> None:
        if task not in tasks():
            raise ConfigError(unknown_name("task", task, tasks()))
        self._told = "singletask" not in task
        visual = task.startswith(_VISUAL)
        if visual and self._told:
            one = f"{env_id.removesuffix('-v0')}-singletask-v0"
            raise ConfigError(f"{env_id} is told its goal as an image, which is not supported: choose {one}")
        if visual and not (images and images.cameras):
            images = ImagesConfig(["front_pixels"], [64, 64])
        with quiet():
            self.env: Any = gymnasium.make(task, disable_env_checker=True).unwrapped
            self._space = _sampled_by_seed(self.env)
        self.variants = _task_names(self.env) if self._told else ("",)
        self._oracles = Oracles(self.env)
        self._arm_only = visual
        self._build()
        super().__init__(images, env_id)
        own = gymnasium.spec(task).max_episode_steps
        self.robot = RobotSpec(
            env_id=env_id,
            observation=self.observation(self._names()),
            action=ArraySpec((5,), names=_ACTION, low=(-1.0,) * 5, high=(1.0,) * 5),
            rate_hz=1.0 / self.env.control_timestep(),
            max_episode_steps=max_episode_steps or own or 1000,
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
        """The description that the model was compiled from."""
        from dm_control import mjcf

        return (mjcf.RootElement, mjcf.Element)

    def reset(self, seed: int, variant: int) -> None:
        """See `SingleEnv.reset`."""
        self._space.seed(seed)
        options = {"task_id": variant + 1} if self._told else None
        observation, info = self.env.reset(seed=seed, options=options)
        self._goal = np.array(info["goal"], np.float64)
        self.instruction = self.env.cur_task_info["task_name"].partition("_")[2].replace("_", " ")
        self._see(observation)
        self._oracles.begin(seed)

    def step(self, action: Float[np.ndarray, " action"]) -> Outcome:
        """See `SingleEnv.step`."""
        with quiet():  # it prints where a block has left the table
            observation, reward, terminated, truncated, info = self.env.step(action)
        self._see(observation)
        return Outcome(float(reward), bool(terminated), bool(truncated), bool(info["success"]))

    def expert_action(self) -> Float[np.ndarray, " action"]:
        """OGBench's own oracles, for one part of the scene after another."""
        return self._oracles.action()

    def set_state(self, state: Frame) -> None:
        """See `SingleEnv.set_state`. The oracles decide anew what to do next."""
        super().set_state(state)
        self._goal = np.array(self.env._cur_goal_ob, np.float64)
        self._oracles.begin(0)

    def _build(self) -> None:
        """Compile the model. In a visual one the arm is see-through; the observation is then of the arm alone."""
        if self._arm_only:
            self.env._mjcf_model = self.env.build_mjcf_model()
            self.env._ob_type = "states"
        self.reset(0, 0)

    def _see(self, observation: np.ndarray) -> None:
        seen = np.asarray(observation, np.float64)
        shown = seen[: len(_ARM)] if self._arm_only else seen
        self._vector = np.concatenate([shown, self._goal]) if self._told else np.array(shown)

    def _names(self) -> list[str]:
        if self._arm_only:
            return list(_ARM)
        width = len(self._goal)
        names = [*_ARM, *(f"scene[{i}]" for i in range(width - len(_ARM)))]
        return [*names, *(f"goal_{name}" for name in names)] if self._told else names


def _task_names(env: Any) -> tuple[str, ...]:
    return tuple(info["task_name"] for info in env.task_infos)


def _sampled_by_seed(env: Any) -> gymnasium.Space:
    """Let random actions that OGBench makes in its resets follow a seed: as it is, they come from a new space each."""
    space = type(env).action_space.fget(env)  # pyright: ignore[reportAttributeAccessIssue]
    env.__class__ = type(type(env).__name__, (type(env),), {"action_space": space})
    return space
