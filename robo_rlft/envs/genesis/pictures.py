"""Pictures of environments, drawn in a scene of their own with one copy of the task's entities.

The physics so has no camera to pay for: a machine without OpenGL trains all the same.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import UInt8

from robo_rlft.envs.genesis.arrays import Arrays
from robo_rlft.envs.genesis.task import GenesisTask, Params, State
from robo_rlft.envs.genesis.world import Ids, new_scene
from robo_rlft.errors import ConfigError, UserError, unknown_name


class Pictures:
    """Cameras of one size.

    Args:
        gs: Genesis, started.
        task: its entities, views and markers.
        params: of the task.
        size: height and width in pixels.

    Raises:
        UserError: there is no OpenGL driver.
    """

    def __init__(self, gs: ModuleType, task: GenesisTask, params: Params, size: tuple[int, int]) -> None:
        self.size, self._task, self._params = size, task, params
        self._scene = new_scene(gs, task)
        self._entities = task.scene(gs, self._scene, params)
        self._markers = [
            self._scene.add_entity(
                gs.morphs.Sphere(radius=marker.radius, fixed=True, collision=False),
                surface=gs.surfaces.Plastic(color=marker.colour),
            )
            for marker in task.markers
        ]
        self._cameras = {
            name: self._scene.add_camera(res=(size[1], size[0]), pos=v.eye, lookat=v.at, fov=v.fov_deg, GUI=False)
            for name, v in task.views.items()
        }
        self._build(gs)

    def draw(self, camera: str | None, ids: Ids, state: State, arrays: Arrays) -> UInt8[np.ndarray, "row h w 3"]:
        """What a camera sees of environments.

        Raises:
            ConfigError: there is no such camera.
        """
        name = camera or next(iter(self._cameras), "")
        if name not in self._cameras:
            raise ConfigError(unknown_name(f"camera of {self._task.id}", name, self._cameras))
        spots = [marker.at(arrays.xp, state, self._params) for marker in self._task.markers]
        return np.stack([self._draw_one(self._cameras[name], int(i), state, spots, arrays) for i in ids])

    def close(self) -> None:
        """Free the scene and its OpenGL context."""
        self._scene.destroy()

    def _build(self, gs: ModuleType) -> None:
        try:
            self._scene.build()
        except (gs.GenesisException, ImportError, OSError) as error:
            raise UserError(
                "Genesis found no OpenGL driver to draw with: on Debian and Ubuntu, "
                f"apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri ({error})"
            ) from error

    def _draw_one(self, camera: Any, row: int, state: State, spots: list[Any], arrays: Arrays) -> np.ndarray:
        for name, entity in self._entities.items():
            entity.set_qpos(arrays.tensor(state.data[f"{name}.qpos"])[row])
        for marker, spot in zip(self._markers, spots, strict=True):
            marker.set_pos(arrays.tensor(spot)[row])
        self._scene.visualizer.update()
        return np.ascontiguousarray(camera.render(force_render=True)[0])
