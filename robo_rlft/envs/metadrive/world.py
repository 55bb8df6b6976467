"""MetaDrive inside one process: offline, quiet, decided by a seed alone. Importing this module imports MetaDrive."""

from __future__ import annotations

import importlib
import logging
import os
import random
from typing import Any

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("SDL_AUDIODRIVER", "dummy")

import gymnasium
import numpy as np
from metadrive.base_class.randomizable import Randomizable
from metadrive.engine.base_engine import BaseEngine
from metadrive.obs.observation_base import BaseObservation

# Its models and textures would be downloaded here; what is neither rendered in 3-D nor heard needs none of them.
BaseEngine.try_pull_asset = staticmethod(lambda: None)

EXACT = {"force_destroy": True, "store_map": False}
"""MetaDrive reuses vehicles and maps of earlier episodes, and their past shows in the physics. New ones have none."""
QUIET = {"log_level": logging.CRITICAL}


class SeededWorld:
    """Over an environment of MetaDrive: the number given to `begin` decides the whole episode.

    MetaDrive's own seed is the index of a scenario; some of its choices follow that, others the operating system.
    """

    _sequence: np.random.Generator | None = None
    _everything: int | None = None

    def begin(self, seed: int, index: int, vary_traffic: bool) -> None:
        """Start an episode.

        Args:
            seed: decides every draw that the scenario does not.
            index: the scenario.
            vary_traffic: vehicles follow the seed; without, they follow the scenario.
        """
        random.seed(seed)
        np.random.seed(seed % 2**32)
        self._sequence = np.random.default_rng(seed)
        self._everything = seed if vary_traffic else None
        self.reset(seed=index)  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def _DEBUG_RANDOM_SEED(self) -> int | None:  # noqa: N802 - MetaDrive seeds a generator with it at each draw
        return None if self._sequence is None else int(self._sequence.integers(2**31))

    def reward_function(self, object_id: str) -> tuple[float, dict[str, Any]]:
        """MetaDrive's, with the share of the route driven, which some of its tasks leave out."""
        reward, info = super().reward_function(object_id)  # pyright: ignore[reportAttributeAccessIssue]
        navigation = self.agents[object_id].navigation  # pyright: ignore[reportAttributeAccessIssue]
        return reward, {"route_completion": navigation.route_completion, **info}

    def _reset_global_seed(self, force_seed: int | None = None) -> None:
        super()._reset_global_seed(force_seed)  # pyright: ignore[reportAttributeAccessIssue]
        if self._everything is None:
            return
        engine = self.engine  # pyright: ignore[reportAttributeAccessIssue]
        Randomizable.seed(engine, self._everything)
        for name, manager in engine.managers.items():
            if name != "map_manager":
                manager.seed(self._everything)


class Blank(BaseObservation):
    """In place of MetaDrive's observation, which every step would compute whether or not somebody looks."""

    nothing = np.zeros(1, np.float32)

    @property
    def observation_space(self) -> gymnasium.spaces.Box:
        """One zero."""
        return gymnasium.spaces.Box(0.0, 1.0, (1,), np.float32)

    def observe(self, *args: Any, **kwargs: Any) -> np.ndarray:
        """One zero."""
        return self.nothing


def open_world(target: str, config: dict[str, Any]) -> Any:
    """An environment of MetaDrive with the methods of `SeededWorld`. A process can have one.

    Args:
        target: "module:Class".
        config: its settings.
    """
    module, _, name = target.partition(":")
    base = getattr(importlib.import_module(module), name)
    return type(f"Seeded{name}", (SeededWorld, base), {})(config | QUIET | EXACT)
