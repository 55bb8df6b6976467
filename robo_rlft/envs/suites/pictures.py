"""Images of a MuJoCo simulation that is not ours, drawn without touching it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import cv2
import mujoco
import numpy as np
from jaxtyping import UInt8

from robo_rlft.envs.images import ImagesConfig
from robo_rlft.envs.mujoco.render import FAST, FULL, Look, View, camera_number
from robo_rlft.envs.pool.single import Frame
from robo_rlft.errors import ConfigError, unknown_name
from robo_rlft.spec import IMAGE_PREFIX, ArraySpec

Image = UInt8[np.ndarray, "height width 3"]


class Pictures:
    """Draws simulations through their cameras; OpenGL is opened with the first picture.

    Args:
        aim: of the default view, MuJoCo's free camera: `distance` (m), `azimuth`, `elevation` (degrees), `lookat`
            (m), or `trackbodyid`.
        hung: cameras that hang upside down in the model; their pictures are turned by half a turn.
        hidden: groups of geoms that are not drawn, such as those that only collide.
        aliases: other names for cameras of the model.
    """

    def __init__(
        self,
        aim: Mapping[str, Any] | None = None,
        hung: Collection[str] = (),
        hidden: Collection[int] = (),
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        self._aliases = dict(aliases or {})
        self._aim, self._hung, self._hidden = dict(aim or {}), frozenset(hung), tuple(hidden)
        self._views: dict[tuple[int, tuple[int, int], Look], View] = {}
        self._grounds: dict[tuple[int, tuple[int, int], Look], int] = {}

    def draw(
        self, model: mujoco.MjModel, data: mujoco.MjData, camera: str | None, size: tuple[int, int], look: Look = FULL
    ) -> Image:
        """A picture; bodies are posed in a copy of the state.

        Args:
            model: what is drawn, as it stands now.
            data: its state.
            camera: one of the model, or None for the default view.
            size: height and width in pixels.
            look: what to spend time on.

        Raises:
            ConfigError: there is no such camera.
        """
        view = self._view(model, size, look)
        state = np.empty(mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_PHYSICS))
        mujoco.mj_getState(model, data, state, mujoco.mjtState.mjSTATE_PHYSICS)
        mujoco.mj_setState(model, view.data, state, mujoco.mjtState.mjSTATE_PHYSICS)
        view.data.mocap_pos[...], view.data.mocap_quat[...] = data.mocap_pos, data.mocap_quat
        view.pose(model, view.data)
        image = np.empty((*size, 3), np.uint8)
        chosen = None if camera is None else self._aliases.get(camera, camera)
        view.draw(self._free(model) if chosen is None else camera_number(model, chosen), image)
        return np.ascontiguousarray(image[::-1, ::-1]) if camera in self._hung else image

    def close(self) -> None:
        """Free the contexts."""
        for view in self._views.values():
            view.close()
        self._views.clear()

    def _view(self, model: mujoco.MjModel, size: tuple[int, int], look: Look) -> View:
        ground = hash(model.hfield_data.tobytes()) if model.nhfield else 0  # uploaded once, when a view is made
        key = (id(model), size, look)
        if key in self._views and self._grounds[key] != ground:
            self._views.pop(key).close()
        if key not in self._views:
            self._views[key], self._grounds[key] = View(model, size, look), ground
            for group in self._hidden:
                self._views[key].option.geomgroup[group] = 0
        return self._views[key]

    def _free(self, model: mujoco.MjModel) -> mujoco.MjvCamera:
        camera = mujoco.MjvCamera()
        mujoco.mjv_defaultFreeCamera(model, camera)
        if "trackbodyid" in self._aim:
            camera.type = mujoco.mjtCamera.mjCAMERA_TRACKING
        for name, value in self._aim.items():
            if name == "lookat":
                camera.lookat[:] = value
            else:
                setattr(camera, name, value)
        return camera


class Eyes:
    """The cameras that an environment's policy sees through.

    Args:
        images: settings; None or without cameras: no images.
        known: names of cameras that there are.
        env_id: for messages.
        look: what to spend time on.

    Raises:
        ConfigError: an unknown camera, or randomised images.
    """

    def __init__(self, images: ImagesConfig | None, known: list[str], env_id: str, look: Look = FAST) -> None:
        self._look = look
        self.cameras = list(images.cameras) if images else []
        self.size = (images.size[0], images.size[1]) if images else (96, 96)
        if images and images.randomise.any:
            raise ConfigError(f"environment {env_id} does not vary its images: leave env.images.randomise at 0")
        for camera in self.cameras:
            if camera not in known:
                raise ConfigError(f"environment {env_id}: {unknown_name('camera', camera, known)}")

    @property
    def specs(self) -> dict[str, ArraySpec]:
        """One spec per image."""
        return {f"{IMAGE_PREFIX}{camera}": ArraySpec((*self.size, 3), "uint8") for camera in self.cameras}

    def look(self, pictures: Pictures, model: mujoco.MjModel, data: mujoco.MjData) -> Frame:
        """One image per camera."""
        return {f"{IMAGE_PREFIX}{c}": pictures.draw(model, data, c, self.size, self._look) for c in self.cameras}


def cameras_of(model: mujoco.MjModel) -> list[str]:
    """Names of a model's cameras."""
    return [model.camera(i).name for i in range(model.ncam)]


def resized(image: np.ndarray, size: tuple[int, int]) -> Image:
    """A picture at another height and width; uint8 [h, w, 3]."""
    height, width = size
    if image.shape[:2] == size:
        return np.ascontiguousarray(image)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
