"""One ManiSkill environment on the CPU: PhysX, one scene, one robot or two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from robo_rlft.envs.maniskill import headless, library, states
from robo_rlft.envs.maniskill.cameras import Photographer, Portrait, camera_spec, check_cameras
from robo_rlft.envs.maniskill.layout import (
    VectorLayout,
    action_scale,
    action_spec,
    robot_name,
    to_action,
    vector_layout,
)
from robo_rlft.envs.pool.single import Frame, Outcome, SingleEnv
from robo_rlft.errors import ConfigError, unknown_name
from robo_rlft.spec import CRITIC_KEY, IMAGE_PREFIX, POLICY_KEY, ArraySpec, RobotSpec

RESTORES = ("replay", "physics")
DRAWING_TASKS = ("PushT-v1",)
"""Tasks whose rewards or states read what is drawn."""


@dataclass(frozen=True)
class Settings:
    """Which task and how; picklable.

    Attributes:
        task: ManiSkill's id.
        control_mode: what an action means; empty takes the robot's first.
        reward_mode: `normalized_dense`, `dense`, `sparse` or `none`; empty takes the densest normalised one there is.
        robot: the robot's uid; empty takes the task's own.
        state: what the group `policy` holds, see `layout.STATES`.
        max_episode_steps: control steps before truncation; None takes the registered number.
        ignore_terminations: an episode goes on after success or failure, up to its time limit.
        restore: how a saved state comes back, see `ManiSkillSingle`.
        cameras: observed through.
        size: of the images, height and width in pixels.
        task_args: further arguments of the task's constructor.
    """

    task: str
    control_mode: str = ""
    reward_mode: str = ""
    robot: str = ""
    state: str = "task"
    max_episode_steps: int | None = None
    ignore_terminations: bool = False
    restore: str = "replay"
    cameras: tuple[str, ...] = ()
    size: tuple[int, int] = (128, 128)
    task_args: Mapping[str, Any] = field(default_factory=dict)

    def arguments(self) -> dict[str, Any]:
        """Of ManiSkill's constructor, backends and cameras aside.

        Raises:
            ConfigError: the task has no such reward.
        """
        reward = library.reward_mode(self.task, self.reward_mode)
        control = {"control_mode": self.control_mode} if self.control_mode else {}
        return {"obs_mode": "state_dict", "reward_mode": reward, **control, **self.task_args}


class ManiSkillSingle(SingleEnv):
    """One environment.

    A state comes back in one of two ways. `replay`: the episode's seed and actions are the state, and they are played
    again; PhysX on the CPU gives the same numbers for the same actions, so this is exact, and takes as long as the
    episode so far. `physics`: poses, velocities and controller targets are written into the scene at once; what the
    solver remembers of its contacts is lost, and the future drifts away slowly.

    Args:
        settings: which task and how.

    Raises:
        ConfigError: a setting that the task does not have, a download or a driver that is missing.
    """

    def __init__(self, settings: Settings) -> None:
        library.import_mani_skill()
        if settings.restore not in RESTORES:
            raise ConfigError(unknown_name("restore", settings.restore, RESTORES))
        if settings.cameras:
            headless.require_driver(f"cameras {', '.join(settings.cameras)} of ManiSkill's {settings.task}:")
        self.settings = settings
        self.env = self._build()
        obs, info = self.env.reset(seed=0)
        check_cameras(self.env, settings.cameras, settings.task)
        self._layouts = vector_layouts(self.env, obs, settings.state)
        self._photographer = Photographer(self.env, settings.cameras)
        self._portrait: Portrait | None = None
        self._flags = tuple(name for name in flag_names(info) if name != "success")
        self.robot = describe(self.env, settings, self._layouts)
        self.fidelity = "exact" if settings.restore == "replay" else "drift"
        self.has_success = "success" in info
        self.metrics = self._flags
        self._begin(0, obs)

    def reset(self, seed: int, variant: int) -> None:
        """See `SingleEnv.reset`."""
        self._begin(seed, self.env.reset(seed=seed)[0])

    def step(self, action: Float[np.ndarray, " action"]) -> Outcome:
        """See `SingleEnv.step`."""
        self._played.append(np.asarray(action, np.float32))
        row = torch.from_numpy(self._played[-1])[None]
        self._obs, reward, terminated, _, info = self.env.step(to_action(self.env, row))
        self._seen |= np.array([bool(info[name]) for name in self._flags], bool)
        return Outcome(
            reward=float(reward),
            terminated=bool(terminated) and not self.settings.ignore_terminations,
            success=bool(info.get("success", False)),
            metrics=dict(zip(self._flags, self._seen.astype(float).tolist(), strict=True)),
        )

    def observe(self) -> Frame:
        """See `SingleEnv.observe`."""
        vectors = {key: layout.rows(self._obs)[0].numpy() for key, layout in self._layouts.items()}
        return vectors | {f"{IMAGE_PREFIX}{name}": image for name, image in self._photographer.take().items()}

    def get_state(self) -> Frame:
        """See `SingleEnv.get_state`."""
        own = {"seed": np.int64(self._seed), "steps": np.int64(len(self._played)), "flags": self._seen.copy()}
        history = self._history() if self.settings.restore == "replay" else {"physics": states.flatten(self.env)}
        return {key: np.asarray(value) for key, value in (own | history).items()}

    def set_state(self, state: Frame) -> None:
        """See `SingleEnv.set_state`."""
        seed, steps = int(state["seed"]), int(state["steps"])
        if self.settings.restore == "replay":
            self._replay(seed, state["actions"][:steps])
        else:
            self._rewrite(seed, steps, state["physics"])
        self._seen = np.array(state["flags"])

    def render(self, camera: str | None, size: tuple[int, int]) -> np.ndarray:
        """See `SingleEnv.render`.

        Raises:
            ConfigError: there is no Vulkan driver, or no such camera.
        """
        if self._portrait is None:
            self._portrait = Portrait(self.settings.task, self.settings.robot, self.settings.arguments())
        return self._portrait.take(self.env, self._seed, camera, size)

    def close(self) -> None:
        """See `SingleEnv.close`."""
        self.env.close()
        if self._portrait is not None:
            self._portrait.close()

    def _build(self) -> Any:
        settings = self.settings
        draws = settings.cameras or settings.task in DRAWING_TASKS
        drawing = {"render_backend": "cpu" if draws else "none", "sim_backend": "physx_cpu"}
        height, width = settings.size
        sensors = {"sensor_configs": {"height": height, "width": width}} if settings.cameras else {}
        return library.build(settings.task, settings.robot, settings.arguments() | drawing | sensors)

    def _begin(self, seed: int, obs: Mapping[str, Any]) -> None:
        self._seed, self._obs = seed, obs
        self._played: list[np.ndarray] = []
        self._seen = np.zeros(len(self._flags), bool)

    def _history(self) -> Frame:
        """The actions so far, in an array that holds a whole episode."""
        actions = np.zeros((self.robot.max_episode_steps, *self.robot.action.shape), np.float32)
        if self._played:
            actions[: len(self._played)] = self._played
        return {"actions": actions}

    def _replay(self, seed: int, actions: Float[np.ndarray, "step action"]) -> None:
        self.reset(seed, 0)
        for action in actions:
            self.step(action.copy())

    def _rewrite(self, seed: int, steps: int, physics: Float[np.ndarray, " entry"]) -> None:
        # The seed decides what a state leaves out: sizes of objects, goals, what a task drew at its beginning.
        if seed != self._seed:
            self.reset(seed, 0)
        states.restore(self.env, physics, steps)
        self._obs = self.env.get_obs()
        self._played = [np.zeros(self.robot.action.shape, np.float32)] * steps


def vector_layouts(env: Any, obs: Mapping[str, Any], state: str) -> dict[str, VectorLayout]:
    """The group `policy`, and `critic` where a policy does not see everything."""
    layouts = {POLICY_KEY: vector_layout(env, obs, state)}
    return layouts if state == "task" else layouts | {CRITIC_KEY: vector_layout(env, obs, "task")}


def flag_names(info: Mapping[str, Any]) -> list[str]:
    """What a task says of a state in yes and no, success among it."""
    return [k for k, v in info.items() if isinstance(v, torch.Tensor) and v.dtype == torch.bool and v.ndim == 1]


def describe(env: Any, settings: Settings, layouts: Mapping[str, VectorLayout]) -> RobotSpec:
    """The specification of one task with its settings."""
    images = {f"{IMAGE_PREFIX}{name}": camera_spec(env, name) for name in settings.cameras}
    vectors: dict[str, ArraySpec] = {key: layout.spec for key, layout in layouts.items()}
    return RobotSpec(
        env_id=f"maniskill:{settings.task}",
        observation=vectors | images,
        action=action_spec(env, settings.task),
        rate_hz=float(env.control_freq),
        max_episode_steps=library.episode_steps(settings.task, settings.max_episode_steps),
        task={
            "control_mode": mode_name(env),
            "reward_mode": env.reward_mode,
            "robot": robot_name(env),
            "action_scale": action_scale(env),
        },
    )


def mode_name(env: Any) -> str:
    """The control mode, of all robots where there are several."""
    mode = env.control_mode
    return mode if isinstance(mode, str) else " ".join(sorted(set(mode.values())))
