"""What a driver sees: names of the state vector's entries, and top-down images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from robo_rlft.errors import ConfigError, unknown_name
from robo_rlft.spec import IMAGE_PREFIX, ArraySpec

TOPDOWN = "topdown"
"""Camera: the road, the way driven so far, the traffic; the agent in the middle, driving up."""
MOTION = "topdown_motion"
"""Camera: the traffic now, half a second and a second ago."""
CAMERAS = (TOPDOWN, MOTION)
_EGO = ("heading_error", "speed", "steering", "last_steering", "last_throttle", "yaw_rate")
_CHECKPOINT = ("ahead", "side", "radius", "clockwise", "angle")
_WAYPOINTS = 9
_FRAME_SKIP = 5
"""Control steps between the frames of `MOTION`."""
_RANGE_M = 50.0
"""Side of the square that the top-down images show, m."""


def policy_spec(vehicle: Mapping[str, Any], replays: bool) -> ArraySpec:
    """The state vector's specification; every entry is scaled to [0, 1].

    Args:
        vehicle: MetaDrive's `vehicle_config`.
        replays: the agent follows a recorded trajectory instead of a route through lanes.
    """
    names = (*_borders(vehicle), *_EGO, *_centre(vehicle), *(_waypoints() if replays else _checkpoints()))
    names += (*_others(vehicle["lidar"]), *_rays("lidar", vehicle["lidar"]["num_lasers"]))
    return ArraySpec((len(names),), names=names)


def image_specs(cameras: Sequence[str], size: Sequence[int]) -> dict[str, ArraySpec]:
    """Specifications of the top-down images asked for.

    Raises:
        ConfigError: an unknown camera, or an image that is not square.
    """
    for camera in cameras:
        if camera not in CAMERAS:
            raise ConfigError(unknown_name("camera", camera, CAMERAS))
    if cameras and size[0] != size[1]:
        raise ConfigError(f"env.images.size={list(size)}: MetaDrive's top-down images are square, e.g. [84, 84]")
    return {f"{IMAGE_PREFIX}{camera}": ArraySpec((size[0], size[1], 3), "uint8") for camera in cameras}


class TopDown:
    """Top-down images of one agent, drawn without OpenGL. They have a memory: `see` once a control step.

    Args:
        vehicle: MetaDrive's `vehicle_config`.
        cameras: which images.
        size: their side in pixels.
    """

    def __init__(self, vehicle: Mapping[str, Any], cameras: Sequence[str], size: int) -> None:
        from metadrive.obs.top_down_obs_multi_channel import TopDownMultiChannel

        self._cameras = tuple(cameras)
        self._canvas = TopDownMultiChannel(
            vehicle,
            onscreen=False,
            clip_rgb=True,  # with bytes, its doubled road channel would overflow
            frame_stack=3,
            post_stack=5,
            frame_skip=_FRAME_SKIP,
            resolution=(size, size),
            max_distance=_RANGE_M,
        )
        self.images: dict[str, UInt8[np.ndarray, "h w 3"]] = {}
        """By observation key, as last seen."""

    def begin(self, world: Any, agent: Any) -> None:
        """A new episode."""
        self._canvas.reset(world, agent)
        self.see(agent)

    def see(self, agent: Any) -> None:
        """Draw the present state."""
        road, way, *traffic = np.moveaxis(self._canvas.observe(agent), -1, 0)
        parts = {TOPDOWN: (road, way, traffic[0]), MOTION: traffic}
        self.images = {
            f"{IMAGE_PREFIX}{c}": np.rint(255.0 * np.stack(parts[c], -1)).astype(np.uint8) for c in self._cameras
        }


def _borders(vehicle: Mapping[str, Any]) -> tuple[str, ...]:
    lasers = vehicle["side_detector"]["num_lasers"]
    return _rays("border", lasers) if lasers else ("left_border", "right_border")


def _centre(vehicle: Mapping[str, Any]) -> tuple[str, ...]:
    lasers = vehicle["lane_line_detector"]["num_lasers"]
    return _rays("lane_line", lasers) if lasers else ("lane_offset",)


def _checkpoints() -> tuple[str, ...]:
    return tuple(f"checkpoint{i}_{name}" for i in (1, 2) for name in _CHECKPOINT)


def _waypoints() -> tuple[str, ...]:
    points = tuple(f"waypoint{i + 1}_{name}" for i in range(_WAYPOINTS) for name in ("ahead", "side"))
    # MetaDrive leaves the last two of its 22 entries zero.
    return (*points, "route_offset", "route_heading_error", "unused_0", "unused_1")


def _others(lidar: Mapping[str, Any]) -> tuple[str, ...]:
    names = ("ahead", "side", "speed_ahead", "speed_side")
    names += (
        tuple(f"checkpoint_{n}" for n in ("1_ahead", "1_side", "2_ahead", "2_side")) if lidar["add_others_navi"] else ()
    )
    return tuple(f"vehicle{i + 1}_{name}" for i in range(lidar["num_others"]) for name in names)


def _rays(prefix: str, count: int) -> tuple[str, ...]:
    return tuple(f"{prefix}_{i:03d}" for i in range(count))
