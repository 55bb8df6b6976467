"""What this machine can draw with: OpenGL without a screen, and Vulkan. Only looks, changes nothing."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import subprocess
import sys
from dataclasses import dataclass

BACKENDS = {"egl": "libegl1 libgl1-mesa-dri", "osmesa": "libosmesa6"}
"""MuJoCo's ways to render without a screen, and the Debian packages of each."""

TIMEOUT_S = 60.0

_RENDER = """
import mujoco, numpy as np
model = mujoco.MjModel.from_xml_string('<mujoco><worldbody><geom size=".1" rgba="1 1 1 1"/></worldbody></mujoco>')
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 32, 32) as renderer:
    renderer.update_scene(data)
    assert renderer.render().max() > 0, "the picture is black"
"""


@dataclass(frozen=True)
class Vulkan:
    """What Vulkan answered.

    Attributes:
        devices: physical devices it can use.
        text: one line about it.
    """

    devices: int
    text: str


def try_offscreen(backend: str) -> str:
    """Render a small picture in a process of its own; the last line of its error, or empty when it worked.

    A process of its own, because MuJoCo chooses its backend once, and a broken driver may end the process.
    """
    command = [sys.executable, "-c", _RENDER]
    try:
        done = subprocess.run(
            command, env={**os.environ, "MUJOCO_GL": backend}, capture_output=True, text=True, timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return f"no picture after {TIMEOUT_S:g} s"
    if done.returncode == 0:
        return ""
    errors = [line for line in done.stderr.splitlines() if _is_error(line)]
    return errors[-1] if errors else f"ended with status {done.returncode}"


def vulkan_devices() -> Vulkan:
    """Create an instance and count its devices, through the loader's C interface."""
    name = ctypes.util.find_library("vulkan")
    if name is None:
        return Vulkan(0, "no loader (libvulkan)")
    try:
        return _count_devices(ctypes.CDLL(name))
    except OSError as error:
        return Vulkan(0, f"{name} does not load: {error}")


class _InstanceInfo(ctypes.Structure):
    """VkInstanceCreateInfo without layers and extensions."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("next", ctypes.c_void_p),
        ("flags", ctypes.c_uint32),
        ("application", ctypes.c_void_p),
        ("layer_count", ctypes.c_uint32),
        ("layers", ctypes.c_void_p),
        ("extension_count", ctypes.c_uint32),
        ("extensions", ctypes.c_void_p),
    )


_INSTANCE_CREATE_INFO = 1
"""VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO."""


def _count_devices(library: ctypes.CDLL) -> Vulkan:
    info, instance = _InstanceInfo(type=_INSTANCE_CREATE_INFO), ctypes.c_void_p()
    status = library.vkCreateInstance(ctypes.byref(info), None, ctypes.byref(instance))
    if status != 0:
        return Vulkan(0, f"a loader but no driver (vkCreateInstance: {status})")
    count = ctypes.c_uint32()
    library.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), None)
    library.vkDestroyInstance(instance, None)
    return Vulkan(count.value, f"{count.value} devices")


def _is_error(line: str) -> bool:
    """Lines of a traceback's end, not its frames and not what `__del__` adds after it."""
    return ("Error" in line or "assert" in line) and not line.startswith((" ", "Exception ignored"))
