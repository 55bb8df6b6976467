"""What the adapters of MuJoCo benchmarks share: images, saved states, and the last observation."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import mujoco
import numpy as np
from jaxtyping import Float

from robo_rlft.envs.images import ImagesConfig
from robo_rlft.envs.mujoco.render import FAST, Look
from robo_rlft.envs.pool.single import Frame, SingleEnv
from robo_rlft.envs.suites.pictures import Eyes, Pictures, cameras_of
from robo_rlft.envs.suites.snapshot import Snapshot
from robo_rlft.spec import POLICY_KEY, ArraySpec

_SEEN = "seen"
"""Where a saved state keeps the last observation: some cannot be computed a second time."""


class SimulatedEnv(SingleEnv):
    """One environment of a benchmark on MuJoCo. The subclass keeps `_vector`, the last observation, up to date.

    Args:
        images: cameras to observe through.
        env_id: what the environment is called here.
    """

    _vector: Float[np.ndarray, " obs"]
    default_camera: str | None = None
    """Seen where none is named; None: MuJoCo's free camera."""
    hung: Collection[str] = ()
    """Cameras that hang upside down in the model, see `Pictures`."""
    hidden: Collection[int] = ()
    """Groups of geoms that are not drawn."""
    aliases: Mapping[str, str] = {}
    """Other names for cameras of the model."""
    look: Look = FAST
    """Of images that are observed."""

    def __init__(self, images: ImagesConfig | None, env_id: str) -> None:
        self.env_id = env_id
        self._pictures = Pictures(hung=self.hung, hidden=self.hidden, aliases=self.aliases)
        self._eyes = Eyes(images, [*self.aliases, *cameras_of(self.physics[0])], env_id, self.look)
        self._snapshot = Snapshot(*self.parts, worlds=[self.physics], constant=self.constant)
        self.fidelity = "none" if self._snapshot.opaque else "exact"

    @property
    def physics(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        """The simulation at present."""
        raise NotImplementedError

    @property
    def parts(self) -> Sequence[Any]:
        """The objects whose attributes decide the future, see `Snapshot`."""
        raise NotImplementedError

    @property
    def constant(self) -> Sequence[type]:
        """Types of objects among them that never change."""
        return ()

    def observation(self, names: Sequence[str]) -> dict[str, ArraySpec]:
        """Specs of all groups, from the names of the entries of `policy`."""
        return {POLICY_KEY: ArraySpec((len(names),), names=tuple(names)), **self._eyes.specs}

    def observe(self) -> Frame:
        """See `SingleEnv.observe`."""
        return {POLICY_KEY: self._vector, **self._eyes.look(self._pictures, *self.physics)}

    def get_state(self) -> Frame:
        """See `SingleEnv.get_state`."""
        return {**self._snapshot.save(), _SEEN: self._vector}

    def set_state(self, state: Frame) -> None:
        """See `SingleEnv.set_state`."""
        self._snapshot.restore(state)
        self._vector = np.array(state[_SEEN])

    def render(self, camera: str | None, size: tuple[int, int]) -> np.ndarray:
        """See `SingleEnv.render`."""
        return self._pictures.draw(*self.physics, camera or self.default_camera, size)

    def close(self) -> None:
        """See `SingleEnv.close`."""
        self._pictures.close()


def entry_names(name: str, width: int) -> list[str]:
    """Names of an array's entries."""
    return [name] if width == 1 else [f"{name}[{i}]" for i in range(width)]
