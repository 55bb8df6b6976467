"""ManiSkill without a Vulkan driver: its tasks describe what they look like even where nobody looks.

SAPIEN creates every render material on a Vulkan device, so that without a driver no task can be built, observations of
states or not. Here light-weight stand-ins take the materials' place in a process that has no driver. Physics never
reads a material: trajectories are the same bit for bit (`tests/envs/test_maniskill.py` compares them where there is a
driver). Whatever really needs to draw still fails, with a sentence that says what to install.
"""

from __future__ import annotations

import functools
import glob
import os
import sys
import warnings
from typing import Any

from robo_rlft.errors import ConfigError

NO_DEVICE = "failed to find a rendering device"
"""What SAPIEN says when there is no Vulkan driver, or only ones that are too old for it."""
_STANDING_IN = ("RenderMaterial", "RenderTexture2D", "RenderShapeTriangleMesh")


class StandIn:
    """Takes every argument and attribute of a render object and draws nothing."""

    base_color = (1.0, 1.0, 1.0, 1.0)

    def __init__(self, *args: Any, **properties: Any) -> None:
        vars(self).update(properties)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("set_"):
            return self._ignore
        raise AttributeError(f"nothing is drawn in this process, so that {name} is not known")

    def _ignore(self, *args: Any, **kwargs: Any) -> None:
        """A property that only looks."""


@functools.cache
def can_draw() -> bool:
    """Whether SAPIEN finds a Vulkan device in this process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import sapien

        try:
            sapien.render.RenderMaterial()
        except RuntimeError as error:
            if NO_DEVICE not in str(error):
                raise
            return False
    return True


def prepare() -> None:
    """Put the stand-ins in place where nothing can be drawn, in every module that has the real classes by name."""
    if can_draw():
        return
    from sapien import render

    loaded = [m for name, m in list(sys.modules.items()) if name.partition(".")[0] in ("sapien", "mani_skill")]
    for name in _STANDING_IN:
        real = getattr(render, name)
        if issubclass(real, StandIn):
            return
        stand_in = type(name, (StandIn,), {})
        for module in loaded:
            if vars(module).get(name) is real:
                setattr(module, name, stand_in)


def require_driver(what: str) -> None:
    """Raise `ConfigError` unless this process can draw.

    Args:
        what: the thing that needs it, as the sentence's subject.
    """
    if not can_draw():
        raise ConfigError(no_driver(what))


def no_driver(what: str) -> str:
    """One sentence: what is missing, what was found, what to install."""
    found = _drivers()
    seen = f"those found ({', '.join(found)}) give SAPIEN no device" if found else "none is installed"
    return (
        f"{what} needs a Vulkan driver and {seen}: install your GPU's driver, or Mesa's for the CPU, 25 or newer "
        "(Debian 12: apt-get install -t bookworm-backports mesa-vulkan-drivers; its own Mesa 22 is too old), and set "
        "VK_ICD_FILENAMES to its json file, /usr/share/vulkan/icd.d/lvp_icd.json"
    )


def _drivers() -> list[str]:
    """Manifests of Vulkan drivers, where the loader looks for them."""
    named = os.environ.get("VK_DRIVER_FILES") or os.environ.get("VK_ICD_FILENAMES")
    if named:
        return [path for path in named.split(":") if os.path.exists(path)]
    return sorted(
        p for folder in ("/etc", "/usr/share", "/usr/local/share") for p in glob.glob(f"{folder}/vulkan/icd.d/*")
    )
