"""Any environment of Gymnasium's registry: `gymnasium:ID`, for example `gymnasium:Pendulum-v1`.

Packages that register environments when they are imported take part by name (`gymnasium:package:ID`);
gymnasium-robotics is imported wherever it is installed.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import gymnasium
import mujoco
import numpy as np
import torch
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.error import DependencyNotInstalled
from jaxtyping import Float

from robo_rlft.envs.base import BatchEnv
from robo_rlft.envs.images import ImagesConfig
from robo_rlft.envs.pool.env import PoolEnv
from robo_rlft.envs.pool.single import Frame, Outcome, SingleEnv
from robo_rlft.envs.suites import robotics
from robo_rlft.envs.suites.pictures import Eyes, Pictures, cameras_of, resized
from robo_rlft.envs.suites.snapshot import Snapshot, pack, unpack
from robo_rlft.envs.suites.spaces import Actions, Observations
from robo_rlft.errors import ConfigError, unknown_name
from robo_rlft.spec import IMAGE_PREFIX, POLICY_KEY, RobotSpec

SUCCESS_KEYS = ("is_success", "success")
"""Where environments report in `info` that the task is done."""
OWN_VIEW = "render"
"""The camera that stands for the environment's own `render()`."""
_Physics = tuple[mujoco.MjModel, mujoco.MjData]


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
    rate_hz: float = 0.0,
    action_bound: float = 0.0,
    **params: Any,
) -> BatchEnv:
    """N copies of a Gymnasium environment.

    Args:
        task: its id.
        num_envs: see `envs.make`, as `seed`, `device`, `threads` and `dtype`.
        seed: as there.
        device: as there.
        threads: as there.
        dtype: as there.
        images: cameras of the MuJoCo model, or "render" for what the environment draws itself.
        workers: processes that share the environments; 0 steps them in this one, None chooses.
        rate_hz: control steps per second; 0 asks the environment: its `dt`, else its `metadata["render_fps"]`.
        action_bound: stands in for missing bounds of the action; 0: an action without bounds is refused.
        params: what `gymnasium.make` takes, the environment's own arguments and `max_episode_steps` included.
    """
    env_id = f"gymnasium:{task}"
    make = partial(GymnasiumEnv, task, env_id, images, rate_hz=rate_hz, action_bound=action_bound, **params)
    pool = {"seed": seed, "device": device, "threads": threads, "dtype": dtype, "workers": workers}
    return PoolEnv(make, num_envs, env_id=env_id, **pool)


def tasks() -> Sequence[str]:
    """Ids that Gymnasium knows and that one environment can be made of."""
    robotics.register()
    return sorted(i for i, spec in gymnasium.registry.items() if spec.entry_point is not None)


class GymnasiumEnv(SingleEnv):
    """One Gymnasium environment.

    Args:
        task: its id.
        env_id: what the environment is called here.
        images: see `make_env`, as `rate_hz`, `action_bound` and `params`.
        rate_hz: as there.
        action_bound: as there.
        params: as there.

    Raises:
        ConfigError: unknown id, argument or camera, an action or observation of an unusable kind, no time limit or
            rate.
    """

    def __init__(
        self,
        task: str,
        env_id: str,
        images: ImagesConfig | None = None,
        *,
        rate_hz: float = 0.0,
        action_bound: float = 0.0,
        **params: Any,
    ) -> None:
        robotics.register()
        self.env = _made(task, env_id, params)
        self._observations = Observations(self.env.observation_space, env_id)
        self._actions = Actions(self.env.action_space, action_bound or None, env_id)
        self.reset(0, 0)
        self.has_success = self._reports_success()
        self._physics, self._pictures = _physics(self.env), Pictures(_aim(self.env))
        self._eyes = Eyes(images, self._views(), env_id)
        self._snapshot = Snapshot(self.env, constant=_inert())
        self.fidelity = "none" if self._snapshot.opaque else "exact"
        self.robot = RobotSpec(
            env_id=env_id,
            observation={POLICY_KEY: self._actions.spec, **self._observations.specs, **self._eyes.specs},
            action=self._actions.spec,
            rate_hz=rate_hz or _rate(self.env, env_id),
            max_episode_steps=_limit(self.env, env_id),
            task={k: v for k, v in params.items() if isinstance(v, str | int | float | bool | list)},
        )

    def reset(self, seed: int, variant: int) -> None:
        """See `SingleEnv.reset`."""
        observation, _ = self.env.reset(seed=seed)
        self._see(observation, np.zeros(self._actions.spec.shape))

    def step(self, action: Float[np.ndarray, " action"]) -> Outcome:
        """See `SingleEnv.step`."""
        observation, reward, terminated, truncated, info = self.env.step(self._actions.action(action))
        self._see(observation, action)
        return Outcome(float(reward), bool(terminated), bool(truncated), self._succeeded(info))

    def observe(self) -> Frame:
        """See `SingleEnv.observe`."""
        images = {f"{IMAGE_PREFIX}{camera}": self.render(camera, self._eyes.size) for camera in self._eyes.cameras}
        return {**self._frame, **images}

    def get_state(self) -> Frame:
        """See `SingleEnv.get_state`."""
        return {**self._snapshot.save(), **{f"seen/{k}": v for k, v in self._frame.items()}}

    def set_state(self, state: Frame) -> None:
        """See `SingleEnv.set_state`."""
        self._snapshot.restore(state)
        self._frame = {k: state[f"seen/{k}"].copy() for k in self._frame}

    def render(self, camera: str | None, size: tuple[int, int]) -> np.ndarray:
        """See `SingleEnv.render`."""
        if self._physics is None or camera == OWN_VIEW:
            return resized(_rendered(self.env, self.robot.env_id), size)
        with _goals_shown(self.env, self._physics):
            return self._pictures.draw(*self._physics, camera, size)

    def close(self) -> None:
        """See `SingleEnv.close`."""
        self._pictures.close()
        self.env.close()

    def _see(self, observation: Any, action: np.ndarray) -> None:
        """Keep an observation. One of images only gets the last action as its numbers: a policy needs some."""
        self._frame = {POLICY_KEY: np.array(action), **self._observations.frame(observation)}

    def _views(self) -> list[str]:
        own = [OWN_VIEW] if "rgb_array" in self.env.metadata.get("render_modes", []) else []
        return own + (cameras_of(self._physics[0]) if self._physics else [])

    def _reports_success(self) -> bool:
        """Whether `info` says so: only a step can tell."""
        *_, info = self.env.step(self._actions.action(np.zeros(self._actions.spec.shape)))
        self.reset(0, 0)
        return "episode_task_completions" in info or any(key in info for key in SUCCESS_KEYS)

    def _succeeded(self, info: Mapping[str, Any]) -> bool:
        if "episode_task_completions" in info:  # FrankaKitchen
            return len(info["episode_task_completions"]) == len(self.env.get_wrapper_attr("goal"))
        return any(bool(info.get(key, False)) for key in SUCCESS_KEYS)


def _made(task: str, env_id: str, params: Mapping[str, Any]) -> gymnasium.Env:
    module, _, name = task.rpartition(":")
    try:
        if module:
            importlib.import_module(module)
        spec = gymnasium.spec(name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"environment {env_id}: there is no package '{module}' to import; install it") from error
    except gymnasium.error.Error as error:
        raise ConfigError(unknown_name("environment", env_id, [f"gymnasium:{i}" for i in tasks()])) from error
    modes = _render_modes(spec)
    chosen = {"render_mode": "rgb_array"} if "rgb_array" in modes else {}
    try:
        return gymnasium.make(spec, disable_env_checker=True, **{**chosen, **params})
    except (TypeError, ImportError, gymnasium.error.Error) as error:
        raise ConfigError(f"environment {env_id} cannot be made with {dict(params)}: {error}") from error


def _render_modes(spec: EnvSpec) -> Sequence[str]:
    if callable(spec.entry_point):
        kind: Any = spec.entry_point
    else:
        kind = load_env_creator(str(spec.entry_point))
    return getattr(kind, "metadata", {}).get("render_modes", [])


def _rate(env: gymnasium.Env, env_id: str) -> float:
    """Control steps per second: `dt` where the environment has one (Pendulum's frame rate for videos is another)."""
    steps_s = (getattr(owner, "dt", None) for owner in (env.unwrapped, getattr(env.unwrapped, "robot_env", None)))
    step_s = next((s for s in steps_s if isinstance(s, float)), 0.0)
    rate = 1.0 / step_s if step_s else float(env.metadata.get("render_fps") or 0.0)
    if rate <= 0:
        raise ConfigError(f"environment {env_id} does not say how long a step lasts: set env.params.rate_hz")
    return rate


def _limit(env: gymnasium.Env, env_id: str) -> int:
    steps = env.spec.max_episode_steps if env.spec else None
    if not steps:
        raise ConfigError(f"environment {env_id} has no time limit: set env.params.max_episode_steps")
    return steps


def _physics(env: gymnasium.Env) -> _Physics | None:
    model, data = (getattr(env.unwrapped, name, None) for name in ("model", "data"))
    return (model, data) if isinstance(model, mujoco.MjModel) and isinstance(data, mujoco.MjData) else None


def _inert() -> tuple[type, ...]:
    from gymnasium.envs.mujoco.mujoco_rendering import MujocoRenderer

    return (MujocoRenderer,)


def _aim(env: gymnasium.Env) -> Mapping[str, Any] | None:
    """How the environment's author looks at it."""
    for owner in (env.unwrapped, getattr(env.unwrapped, "robot_env", None)):
        renderer = getattr(owner, "mujoco_renderer", None)
        if renderer is not None:
            return renderer.default_cam_config
    return None


def _rendered(env: gymnasium.Env, env_id: str) -> np.ndarray:
    try:
        image = env.render()
    except DependencyNotInstalled as error:
        raise ConfigError(f"environment {env_id} cannot render: {error}") from error
    if not isinstance(image, np.ndarray):
        raise ConfigError(f"environment {env_id} does not render images")
    return image


@contextmanager
def _goals_shown(env: gymnasium.Env, physics: _Physics) -> Iterator[None]:
    """gymnasium-robotics moves its markers of goals in the model itself, just before it draws."""
    callback = getattr(env.unwrapped, "_render_callback", None)
    if callback is None:
        yield
        return
    kept = pack(*physics)
    callback()
    yield
    unpack(*physics, kept)
