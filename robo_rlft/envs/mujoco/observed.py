"""Image observations: every environment's present state as its cameras see it, drawn when the engine asks.

An image is a function of the physics state and of how the episode looks (`visuals`) alone, so that a saved, restored or
forked state gives the very same image again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import mujoco
import numpy as np
from jaxtyping import UInt64

from robo_rlft.envs.images import ImagesConfig
from robo_rlft.envs.mujoco import generators, visuals
from robo_rlft.envs.mujoco.render import FAST, View, camera_number
from robo_rlft.envs.mujoco.simulation import Ids, Simulation
from robo_rlft.envs.mujoco.table import Groups
from robo_rlft.envs.mujoco.visuals import Visuals
from robo_rlft.envs.randomise import RandomiseConfig
from robo_rlft.errors import ConfigError, SpecError
from robo_rlft.spec import IMAGE_PREFIX, ArraySpec

STATE_KEY = "episode_look"
"""What a saved state says about how its episodes look, uint64 [row, 6]."""


class ImageObservations:
    """The images of N environments; without cameras it holds none and does nothing.

    Args:
        simulation: the environments' physics.
        config: cameras and size.
        randomise: how the looks of episodes differ.

    Attributes:
        present: the newest images by key, uint8 [N, height, width, 3]. `look` replaces the arrays, never changes them.

    Raises:
        ConfigError: an unknown camera or an impossible size.
    """

    def __init__(self, simulation: Simulation, config: ImagesConfig, randomise: RandomiseConfig) -> None:
        self._simulation, self._randomise = simulation, randomise
        if len(config.size) != 2 or min(config.size) < 1:
            raise ConfigError(f"env.images.size is {config.size}: give height and width, e.g. env.images.size=[96,96]")
        self._size = (int(config.size[0]), int(config.size[1]))
        self._numbers = {f"{IMAGE_PREFIX}{c}": camera_number(simulation.model, c) for c in config.cameras}
        self._episodes = np.zeros((simulation.num, 6), np.uint64)
        self._looks: list[Visuals] = [{}] * simulation.num
        self._view: View | None = None
        self.present: Groups = {key: np.zeros((simulation.num, *self._size, 3), np.uint8) for key in self._numbers}

    @property
    def specs(self) -> dict[str, ArraySpec]:
        """What each image holds."""
        return {key: ArraySpec((*self._size, 3), "uint8") for key in self._numbers}

    def begin(self, own: Sequence[np.random.Generator], ids: Ids) -> None:
        """Episodes of `ids` are about to be drawn from their generators: decide how they look."""
        if self._randomised:
            self._set_looks(generators.pack([own[i] for i in ids]), ids)

    def look(self, ids: Ids) -> Groups:
        """Draw `ids` as they are now; returns the images of all environments."""
        if not self._numbers or not len(ids):
            return self.present
        images = {key: values.copy() for key, values in self.present.items()}
        view = self._open()
        for i in ids:
            view.pose(*self._world(int(i)))
            for key, number in self._numbers.items():
                view.draw(number, images[key][i])
        self.present = images
        return images

    def save(self, ids: Ids) -> dict[str, np.ndarray]:
        """How the episodes of `ids` look, for `load`."""
        return {STATE_KEY: self._episodes[ids]} if self._randomised else {}

    def load(self, rows: Mapping[str, np.ndarray], ids: Ids) -> None:
        """Put saved rows into environments `ids` and draw them.

        Raises:
            SpecError: images are randomised and the state does not say how its episodes look.
        """
        if self._randomised:
            if STATE_KEY not in rows:
                raise SpecError(
                    "the saved state does not say how its episodes look: save it with the same env.randomise"
                )
            self._set_looks(rows[STATE_KEY], ids)
        self.look(ids)

    def close(self) -> None:
        """Free the renderer."""
        if self._view is not None:
            self._view.close()
            self._view = None

    @property
    def _randomised(self) -> bool:
        return bool(self._numbers) and self._randomise.looks

    def _set_looks(self, episodes: UInt64[np.ndarray, "row 6"], ids: Ids) -> None:
        self._episodes[ids] = episodes
        for i, episode in zip(ids, episodes, strict=True):
            self._looks[i] = visuals.draw(self._simulation.model, episode, self._randomise)

    def _open(self) -> View:
        if self._view is None:
            self._view = View(self._simulation.model, self._size, FAST)
        return self._view

    def _world(self, i: int) -> tuple[mujoco.MjModel, mujoco.MjData]:
        """The model and the state to draw environment i from."""
        view, batch = self._open(), self._simulation.batch
        if self._simulation.randomised:
            batch.get_model(i, view.model)
        visuals.apply(view.model, self._looks[i])
        batch.get_data(i, view.data)
        return view.model, view.data
