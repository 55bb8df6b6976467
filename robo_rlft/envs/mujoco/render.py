"""Images of environments, without a screen.

The OpenGL context is chosen when the first image is asked for, so that a machine without graphics can still train.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import mujoco
import numpy as np
from jaxtyping import Integer, UInt8
from mujoco.batch import Batch

from robo_rlft.errors import UserError, unknown_name


class Cameras:
    """Renderers by image size, made on first use and freed by `close`.

    Args:
        names: the task's cameras; the first is the default view, none means the free camera.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._views: dict[tuple[int, int], _View] = {}
        self._data: mujoco.MjData | None = None

    def render(
        self,
        batch: Batch,
        ids: Integer[np.ndarray, " row"],
        camera: str | None,
        size: tuple[int, int],
        own_models: bool = False,
    ) -> UInt8[np.ndarray, "row height width 3"]:
        """One image per environment of `ids`; `size` is (height, width) in pixels.

        Args:
            batch: the simulations.
            ids: which of them.
            camera: name, or None for the default view.
            size: of each image.
            own_models: the simulations have model values of their own.

        Raises:
            UserError: the camera is unknown, or this machine has no OpenGL driver.
        """
        if size not in self._views:
            self._views[size] = _View(batch.model, size)
        if self._data is None:
            self._data = mujoco.MjData(batch.model)
        data = self._data
        chosen = camera or (self._names[0] if self._names else None)
        number = _camera_number(batch.model, chosen)
        images = np.empty((len(ids), *size, 3), np.uint8)
        for image, i in zip(images, ids, strict=True):
            model = batch.get_model(int(i)) if own_models else batch.model
            batch.get_data(int(i), data)
            mujoco.mj_forward(model, data)
            self._views[size].draw(model, data, number, image)
        return images

    def close(self) -> None:
        """Free all renderers."""
        for view in self._views.values():
            view.close()
        self._views.clear()


class _View:
    def __init__(self, model: mujoco.MjModel, size: tuple[int, int]) -> None:
        height, width = size
        model.vis.global_.offheight = max(model.vis.global_.offheight, height)
        model.vis.global_.offwidth = max(model.vis.global_.offwidth, width)
        self._gl = _open_gl(width, height)
        self._gl.make_current()
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(model, maxgeom=2000)
        self._rect = mujoco.MjrRect(0, 0, width, height)
        self._option = mujoco.MjvOption()

    def draw(self, model: mujoco.MjModel, data: mujoco.MjData, camera: int | None, image: np.ndarray) -> None:
        self._gl.make_current()
        view = _camera(model, camera)
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(model, data, self._option, None, view, everything, self._scene)
        mujoco.mjr_render(self._rect, self._scene, self._context)
        mujoco.mjr_readPixels(image, None, self._rect, self._context)
        image[:] = image[::-1].copy()  # OpenGL's rows run from the bottom up

    def close(self) -> None:
        self._gl.make_current()
        self._context.free()
        self._gl.free()


def _camera_number(model: mujoco.MjModel, name: str | None) -> int | None:
    if name is None:
        return None
    number = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, name)
    if number < 0:
        raise UserError(unknown_name("camera", name, [model.camera(i).name for i in range(model.ncam)]))
    return number


def _camera(model: mujoco.MjModel, number: int | None) -> mujoco.MjvCamera:
    camera = mujoco.MjvCamera()
    if number is None:
        mujoco.mjv_defaultFreeCamera(model, camera)
    else:
        camera.type, camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, number
    return camera


def _open_gl(width: int, height: int) -> Any:
    """The first OpenGL context this machine can make; MUJOCO_GL names one to insist on."""
    wanted = os.environ.get("MUJOCO_GL", "").lower()
    failures = []
    for name, make in _CONTEXTS.items():
        if wanted not in ("", name) or (name == "glfw" and not _has_screen()):
            continue
        try:
            return make(width, height)
        except Exception as error:  # each library fails in its own way: the next one is tried, the reasons are told
            failures.append(f"{name}: {error}")
    raise UserError(
        "no OpenGL context for rendering (" + "; ".join(failures or ["none to try"]) + "): install EGL, on Debian or "
        "Ubuntu `apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri`"
    )


def _egl(width: int, height: int) -> Any:
    from mujoco.egl import GLContext

    return GLContext(width, height)


def _osmesa(width: int, height: int) -> Any:
    from mujoco.osmesa import GLContext

    return GLContext(width, height)


def _glfw(width: int, height: int) -> Any:
    from mujoco.glfw import GLContext

    return GLContext(width, height)


def _has_screen() -> bool:
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


_CONTEXTS: dict[str, Callable[[int, int], Any]] = (
    {"egl": _egl, "osmesa": _osmesa, "glfw": _glfw} if sys.platform == "linux" else {"glfw": _glfw}
)
