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
        return np.stack([self._draw_one(name, int(i), state, spots, arrays) for i in ids])

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

    def _draw_one(self, name: str, row: int, state: State, spots: list[Any], arrays: Arrays) -> np.ndarray:
        camera = self._cameras[name]
        for entity, drawn in self._entities.items():
            drawn.set_qpos(arrays.tensor(state.data[f"{entity}.qpos"])[row])
        for marker, spot in zip(self._markers, spots, strict=True):
            marker.set_pos(arrays.tensor(spot)[row])
        if self._task.floats:
            self._follow(name, camera, arrays.host(state.data[f"{self._task.floats}.qpos"])[row, :3])
        self._scene.visualizer.update()
        return np.ascontiguousarray(camera.render(force_render=True)[0])

    def _follow(self, name: str, camera: Any, place: np.ndarray) -> None:
        """Keep a camera's view of the entity as it moves over the ground, at the height the ground has there."""
        view = self._task.views[name]
        shift = place - np.array([0.0, 0.0, view.at[2]])
        camera.set_pose(pos=np.array(view.eye) + shift, lookat=np.array(view.at) + shift)
