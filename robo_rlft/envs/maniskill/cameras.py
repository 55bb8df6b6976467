"""Images of ManiSkill's scenes: what a task's cameras observe, and pictures of an episode for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from robo_rlft.envs.maniskill import headless, library
from robo_rlft.errors import ConfigError, unknown_name
from robo_rlft.spec import ArraySpec

Image = UInt8[np.ndarray, "height width 3"]


def check_cameras(env: Any, cameras: Sequence[str], task: str) -> None:
    """Raise `ConfigError` over a camera that the task does not have."""
    if not cameras:
        return
    known = list(env.scene.sensors)
    for name in cameras:
        if name not in known:
            raise ConfigError(f"ManiSkill's {task}: {unknown_name('camera', name, known)}")


def camera_spec(env: Any, camera: str) -> ArraySpec:
    """The image that a camera gives."""
    config = env.scene.sensors[camera].config
    return ArraySpec((config.height, config.width, 3), dtype="uint8")


class Photographer:
    """Takes the images of an observation, of the chosen cameras only and only when asked.

    Args:
        env: ManiSkill's environment, built with a renderer where there are cameras.
        cameras: their names.
    """

    def __init__(self, env: Any, cameras: Sequence[str]) -> None:
        self.env, self.cameras = env, tuple(cameras)

    def rows(self) -> dict[str, UInt8[Tensor, "env height width 3"]]:
        """An image of every environment from every camera."""
        if not self.cameras:
            return {}
        # Marks such as the goal's are for people, ManiSkill never shows them to a policy.
        for thing in self.env._hidden_objects:
            thing.hide_visual()
        self.env.scene.update_render(update_sensors=True, update_human_render_cameras=False)
        sensors = {name: self.env.scene.sensors[name] for name in self.cameras}
        for sensor in sensors.values():
            sensor.capture()
        return {name: _colours(sensor) for name, sensor in sensors.items()}

    def take(self) -> dict[str, Image]:
        """The images of a single environment."""
        return {name: rows[0].numpy() for name, rows in self.rows().items()}


class Portrait:
    """Pictures for people: a second scene with a renderer takes on the state of the one that is simulated.

    So that episodes nobody films cost nothing, and any size and camera is there when asked for.

    Args:
        task, robot, arguments: see `library.build`.

    Raises:
        ConfigError: there is no Vulkan driver.
    """

    def __init__(self, task: str, robot: str, arguments: Mapping[str, Any]) -> None:
        headless.require_driver(f"rendering ManiSkill's {task}")
        self._task, self._robot, self._arguments = task, robot, arguments
        self._size: tuple[int, int] | None = None
        self._seed: int | None = None
        self._env: Any = None

    def take(self, state: Mapping[str, Any], seed: int, camera: str | None, size: tuple[int, int]) -> Image:
        """A picture of a state.

        Args:
            state: `get_state_dict` of the environment that is simulated.
            seed: of its episode.
            camera: one of the task's cameras for people or for policies; None takes the first of the former.
            size: height and width in pixels.

        Raises:
            ConfigError: there is no such camera.
        """
        if size != self._size:
            self._open(size)
        if seed != self._seed:
            self._env.reset(seed=seed)
            self._seed = seed
        self._env.set_state_dict(state)
        return self._picture(camera)

    def close(self) -> None:
        """Let go of the second scene."""
        if self._env is not None:
            self._env.close()

    def _open(self, size: tuple[int, int]) -> None:
        self.close()
        look = {"height": size[0], "width": size[1]}
        drawing = {"sim_backend": "physx_cpu", "render_backend": "cpu", "render_mode": "rgb_array"}
        cameras = {"sensor_configs": dict(look), "human_render_camera_configs": dict(look)}
        self._env = library.build(self._task, self._robot, {**self._arguments, **drawing, **cameras})
        self._size, self._seed = size, None

    def _picture(self, camera: str | None) -> Image:
        scene = self._env.scene
        cameras = {**scene.sensors, **scene.human_render_cameras}
        name = camera or next(iter(scene.human_render_cameras), next(iter(cameras), ""))
        if name not in cameras:
            raise ConfigError(f"ManiSkill's {self._task}: {unknown_name('camera', name, cameras)}")
        for thing in self._env._hidden_objects:
            thing.show_visual()
        scene.update_render(update_sensors=True, update_human_render_cameras=True)
        cameras[name].capture()
        return _colours(cameras[name])[0].numpy()


def _colours(camera: Any) -> UInt8[Tensor, "env height width 3"]:
    seen = camera.get_obs(rgb=True, depth=False, position=False, segmentation=False)["rgb"]
    return seen[..., :3].to(torch.uint8).clone(memory_format=torch.contiguous_format)
