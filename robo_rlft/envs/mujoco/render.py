"""Images of environments, without a screen.

The OpenGL context is chosen when the first image is asked for, so that a machine without graphics can still train.
"""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from jaxtyping import Integer, UInt8
from mujoco.batch import Batch

from robo_rlft.errors import ConfigError, UserError, unknown_name


@dataclass(frozen=True)
class Look:
    """What OpenGL spends its time on, over the model's own `visual/quality`; None leaves that as it is.

    Attributes:
        samples: of each pixel's edges.
        shadows: lights cast them, reflections and haze included.
        slices: around a round shape.
        stacks: along it.
    """

    samples: int | None = None
    shadows: bool = True
    slices: int | None = None
    stacks: int | None = None


FULL = Look()
"""As the task's author drew it: for videos."""
FAST = Look(samples=0, shadows=False, slices=12, stacks=6)
"""For observations of a hundred pixels: a shadow map alone costs more than a hundred such images."""


class Cameras:
    """Renderers by image size, made on first use and freed by `close`.

    Args:
        names: the task's cameras; the first is the default view, none means the free camera.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._views: dict[tuple[int, int], View] = {}

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
            self._views[size] = View(batch.model, size, FULL)
        view = self._views[size]
        chosen = camera or (self._names[0] if self._names else None)
        number = None if chosen is None else camera_number(batch.model, chosen)
        images = np.empty((len(ids), *size, 3), np.uint8)
        for image, i in zip(images, ids, strict=True):
            batch.get_data(int(i), view.data)
            view.pose(batch.get_model(int(i)) if own_models else batch.model, view.data)
            view.draw(number, image)
        return images

    def close(self) -> None:
        """Free all renderers."""
        for view in self._views.values():
            view.close()
        self._views.clear()


class View:
    """One OpenGL context and scene of one image size. `pose` a world, then `draw` it through any of its cameras.

    Args:
        model: what is drawn; its meshes, textures and shapes are uploaded once.
        size: (height, width) in pixels.
        look: what to spend time on.

    Attributes:
        model: a copy of the model to change and pose.
        data: memory for a state to pose.
        option: which groups of geoms and sites are drawn.
    """

    def __init__(self, model: mujoco.MjModel, size: tuple[int, int], look: Look) -> None:
        height, width = size
        self._usable = False
        self.model, self.data = copy.copy(model), mujoco.MjData(model)
        self._gl = open_gl(width, height)
        self._gl.make_current()
        _set_look(self.model, size, look)
        self._context = mujoco.MjrContext(self.model, mujoco.mjtFontScale.mjFONTSCALE_100)
        self._usable = True
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(self.model, maxgeom=2000)
        if not look.shadows:
            for flag in _COSTLY:
                self._scene.flags[flag] = 0
        self._rect = mujoco.MjrRect(0, 0, width, height)
        self.option = mujoco.MjvOption()
        self._posed = (self.model, self.data)
        self._upside_down = np.empty((height, width, 3), np.uint8)

    def pose(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Work out from the state where bodies, lights and cameras are; nothing else a picture needs changes."""
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_camlight(model, data)
        mujoco.mj_flex(model, data)
        mujoco.mj_tendon(model, data)
        self._posed = (model, data)

    def draw(self, camera: int | mujoco.MjvCamera | None, image: UInt8[np.ndarray, "height width 3"]) -> None:
        """The posed world through a camera of the model by number, one of MuJoCo's own, or the free one (None)."""
        self._gl.make_current()
        model, data = self._posed
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(model, data, self.option, None, _camera(model, camera), everything, self._scene)
        self.redraw(image)

    def redraw(self, image: UInt8[np.ndarray, "height width 3"]) -> None:
        """The scene as it stands: what OpenGL alone costs."""
        mujoco.mjr_render(self._rect, self._scene, self._context)
        mujoco.mjr_readPixels(self._upside_down, None, self._rect, self._context)
        image[:] = self._upside_down[::-1]  # OpenGL's rows run from the bottom up

    def close(self) -> None:
        """Free the context."""
        if self._usable:
            self._usable = False
            self._gl.make_current()
            self._context.free()
            self._gl.free()

    def __del__(self) -> None:
        # Left to the interpreter, MuJoCo would free its objects in whatever context is current: another view's.
        if not sys.is_finalizing():
            self.close()


def camera_number(model: mujoco.MjModel, name: str) -> int:
    """The index of a camera.

    Raises:
        ConfigError: there is no such camera.
    """
    number = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, name)
    if number < 0:
        raise ConfigError(unknown_name("camera", name, [model.camera(i).name for i in range(model.ncam)]))
    return number


_COSTLY = (
    mujoco.mjtRndFlag.mjRND_SHADOW,
    mujoco.mjtRndFlag.mjRND_REFLECTION,
    mujoco.mjtRndFlag.mjRND_HAZE,
)


def _set_look(model: mujoco.MjModel, size: tuple[int, int], look: Look) -> None:
    """Write what a context reads from the model when it is made."""
    frame, quality = model.vis.global_, model.vis.quality
    frame.offheight, frame.offwidth = max(frame.offheight, size[0]), max(frame.offwidth, size[1])
    if not look.shadows:
        frame.offheight, frame.offwidth, quality.shadowsize = *size, 0
    quality.offsamples = quality.offsamples if look.samples is None else look.samples
    quality.numslices = look.slices or quality.numslices
    quality.numstacks = look.stacks or quality.numstacks


def _camera(model: mujoco.MjModel, number: int | mujoco.MjvCamera | None) -> mujoco.MjvCamera:
    if isinstance(number, mujoco.MjvCamera):
        return number
    camera = mujoco.MjvCamera()
    if number is None:
        mujoco.mjv_defaultFreeCamera(model, camera)
    else:
        camera.type, camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, number
    return camera


def open_gl(width: int, height: int) -> Any:
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
