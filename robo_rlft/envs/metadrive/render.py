"""Pictures of a MetaDrive world from above, drawn without OpenGL and without MetaDrive's assets."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import UInt8

from robo_rlft.errors import ConfigError, unknown_name

CAMERAS = ("topdown", "ego")
"""Views: north up, or the car's heading up."""
_HEIGHT_M = 90.0
"""Side of the world that fills the picture's height, m."""


def topdown(world: Any, camera: str | None, size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    """Draw the present state around the car, or around the middle of the map where there are several.

    Raises:
        ConfigError: an unknown camera.
    """
    if camera not in (None, *CAMERAS):
        raise ConfigError(unknown_name("camera", camera, CAMERAS))
    height, width = size
    scaling, turned = height / _HEIGHT_M, camera == "ego" and not world.is_multi_agent
    _forget_other_views(world.engine, (width, height), turned)
    middle, extent = _extent(world)
    film = int((extent + 2 * _HEIGHT_M * max(1.0, width / height)) * scaling)
    picture = world.render(
        mode="topdown",
        window=False,
        scaling=scaling,
        film_size=(film, film),
        screen_size=(width, height),
        camera_position=middle if world.is_multi_agent else None,
        target_agent_heading_up=turned,
        num_stack=1,
    )
    return np.ascontiguousarray(picture)


def _forget_other_views(engine: Any, size: tuple[int, int], turned: bool) -> None:
    """MetaDrive keeps the first view of an episode whatever is asked for later."""
    renderer = engine.top_down_renderer
    if renderer is not None and (renderer._screen_size != size or renderer.target_agent_heading_up != turned):
        engine.top_down_renderer = None


def _extent(world: Any) -> tuple[tuple[float, float], float]:
    """Middle of the map and its longer side, m."""
    x_low, x_high, y_low, y_high = world.current_map.road_network.get_bounding_box()
    return ((x_low + x_high) / 2, (y_low + y_high) / 2), max(x_high - x_low, y_high - y_low)
