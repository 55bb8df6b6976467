"""Gymnasium spaces as observation groups and action bounds.

Numbers of every kind go into the group `policy`, under the names of their keys; uint8 images with three channels are
groups of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from jaxtyping import Float

from robo_rlft.envs.pool.single import Frame
from robo_rlft.errors import ConfigError
from robo_rlft.spec import IMAGE_PREFIX, POLICY_KEY, ArraySpec

_LONE = "observation"
"""What a space without keys is called."""


@dataclass(frozen=True)
class Leaf:
    """One space without parts.

    Attributes:
        path: keys that lead to it.
        space: it.
    """

    path: tuple[str | int, ...]
    space: spaces.Space

    @property
    def name(self) -> str:
        """Its keys, joined by slashes."""
        return "/".join(str(key) for key in self.path) or _LONE

    @property
    def is_image(self) -> bool:
        """Shown as a picture rather than told as numbers."""
        shape = self.space.shape or ()
        return isinstance(self.space, spaces.Box) and self.space.dtype == np.uint8 and len(shape) == 3 == shape[-1]

    @property
    def width(self) -> int:
        """Entries it takes among the numbers."""
        return spaces.flatdim(self.space)

    def value(self, observation: Any) -> Any:
        """This leaf's part of an observation."""
        for key in self.path:
            observation = observation[key]
        return observation


class Observations:
    """Turns one environment's observations into frames.

    Args:
        space: their space.
        width: of the `policy` group where the space holds images only; the caller fills it.
        env_id: for messages.

    Raises:
        ConfigError: a part of the space has no fixed size.
    """

    def __init__(self, space: spaces.Space, env_id: str) -> None:
        leaves = list(_leaves(space, ()))
        for leaf in leaves:
            if not isinstance(leaf.space, spaces.Box | spaces.Discrete | spaces.MultiBinary | spaces.MultiDiscrete):
                raise ConfigError(
                    f"environment {env_id}: observation '{leaf.name}' is a {type(leaf.space).__name__} space; "
                    "use an environment with Box, Discrete, MultiBinary, MultiDiscrete, Dict or Tuple observations"
                )
        self.images = {f"{IMAGE_PREFIX}{leaf.name}": leaf for leaf in leaves if leaf.is_image}
        self.numbers = [leaf for leaf in leaves if not leaf.is_image]

    @property
    def specs(self) -> dict[str, ArraySpec]:
        """One spec per group; `policy` is absent where the space holds images only."""
        pictures = {key: ArraySpec(leaf.space.shape or (), "uint8") for key, leaf in self.images.items()}
        if not self.numbers:
            return pictures
        names = tuple(f"{leaf.name}[{i}]" for leaf in self.numbers for i in range(leaf.width))
        return {POLICY_KEY: ArraySpec((len(names),), names=names), **pictures}

    def frame(self, observation: Any) -> Frame:
        """One observation by group: numbers as float64 [D], pictures as uint8 [h, w, 3]."""
        frame: Frame = {key: np.array(leaf.value(observation)) for key, leaf in self.images.items()}
        if self.numbers:
            frame[POLICY_KEY] = np.concatenate([_flat(leaf, leaf.value(observation)) for leaf in self.numbers])
        return frame


def _flat(leaf: Leaf, value: Any) -> Float[np.ndarray, " entry"]:
    return np.asarray(spaces.flatten(leaf.space, value), np.float64)  # pyright: ignore[reportArgumentType]


def _leaves(space: spaces.Space, path: tuple[str | int, ...]) -> Iterator[Leaf]:
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            yield from _leaves(part, (*path, key))
    elif isinstance(space, spaces.Tuple):
        for i, part in enumerate(space.spaces):
            yield from _leaves(part, (*path, i))
    else:
        yield Leaf(path, space)


class Actions:
    """Turns flat actions within bounds into those of a space.

    A Box takes them as they are, in its own shape. A Discrete space of n takes n preferences in [-1, 1], and the
    largest is chosen: policies here are continuous.

    Args:
        space: the environment's action space.
        bound: stands in for the bounds that a Box lacks, as -bound and bound; None: such a Box is refused.
        env_id: for messages.

    Raises:
        ConfigError: another kind of space, or a Box without bounds and no `bound`.
    """

    def __init__(self, space: spaces.Space, bound: float | None, env_id: str) -> None:
        self._space = space
        if isinstance(space, spaces.Discrete):
            self.spec = _bounded(np.full(int(space.n), -1.0), np.full(int(space.n), 1.0), "prefer")
        elif isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
            low, high = _filled(space, bound, env_id)
            self.spec = _bounded(low, high, "action")
        else:
            raise ConfigError(
                f"environment {env_id}: actions must be a Box of floats or Discrete, this one has {space}"
            )

    def action(self, flat: Float[np.ndarray, " entry"]) -> Any:
        """The environment's action; a copy."""
        if isinstance(self._space, spaces.Discrete):
            return int(self._space.start) + int(np.argmax(flat))
        return np.array(flat, self._space.dtype).reshape(self._space.shape or ())


def _bounded(low: np.ndarray, high: np.ndarray, name: str) -> ArraySpec:
    names = tuple(f"{name}[{i}]" for i in range(len(low)))
    return ArraySpec((len(low),), names=names, low=tuple(low.tolist()), high=tuple(high.tolist()))


def _filled(space: spaces.Box, bound: float | None, env_id: str) -> tuple[np.ndarray, np.ndarray]:
    low, high = space.low.astype(float).ravel(), space.high.astype(float).ravel()
    if np.isfinite(low).all() and np.isfinite(high).all():
        return low, high
    if bound is None:
        raise ConfigError(
            f"environment {env_id} has actions without bounds ({space}): say the largest that makes sense, for example "
            "env.params.action_bound=1.0"
        )
    return np.where(np.isfinite(low), low, -bound), np.where(np.isfinite(high), high, bound)
