"""Ground that is not flat: a height field of square tiles, one kind and level each.

Between tiles, and at the border, runs a flat strip at height 0; no ground is lower than that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float

from robo_rlft.envs.legged.view import Array, constant

CELL_M, TILE_M, RIM_M = 0.1, 16.0, 1.0
COLUMNS = 4
"""Tiles side by side along x: the levels of one kind."""
LEVELS = (0.25, 0.5, 0.75, 1.0)
"""Difficulty of each level, as a share of the hardest."""
_AHEAD, _ASIDE = (-0.6, -0.4, -0.2, 0.0, 0.2, 0.4, 0.6), (-0.4, -0.2, 0.0, 0.2, 0.4)
SCAN_POINTS = tuple((x, y) for x in _AHEAD for y in _ASIDE)
"""Where the ground is looked at, forward and left of the base, m."""


@dataclass(frozen=True, eq=False)
class Terrain:
    """A height field centred on the origin.

    Attributes:
        heights: row along y, column along x, m.
        cell: distance of neighbouring heights, m.
        origins: middle of every tile, [tile, 2], m.
        names: of the tiles: kind and level.
    """

    heights: Float[np.ndarray, "row column"]
    cell: float
    origins: Float[np.ndarray, "tile 2"]
    names: tuple[str, ...]

    def highest_around(self, spot: Float[np.ndarray, " 2"], reach: float = 0.4) -> float:
        """The highest ground within a square of twice `reach`: a robot put above it touches nothing else."""
        rows, columns = self.heights.shape
        column, row = spot / self.cell + (np.array([columns, rows]) - 1) / 2
        far = int(np.ceil(reach / self.cell))
        at_row, at_column = (
            slice(max(int(row) - far, 0), int(row) + far + 2),
            slice(max(int(column) - far, 0), int(column) + far + 2),
        )
        return float(self.heights[at_row, at_column].max())


def waves(rng: np.random.Generator, x: Array, y: Array, level: float) -> Array:
    """Smooth hills up to 0.3 m high, some 4 m apart."""
    phases = rng.uniform(0.0, 2.0 * np.pi, 2)
    return 0.15 * level * (2.0 + np.sin(1.6 * x + phases[0]) * 1.0 + np.sin(1.6 * y + phases[1])) / 2.0


def noise(rng: np.random.Generator, x: Array, y: Array, level: float) -> Array:
    """Independent heights up to 8 cm, one for every 0.2 m."""
    coarse = rng.uniform(0.0, 0.08 * level, (-(-x.shape[0] // 2), -(-x.shape[1] // 2)))
    return np.kron(coarse, np.ones((2, 2)))[: x.shape[0], : x.shape[1]]


def stairs(rng: np.random.Generator, x: Array, y: Array, level: float) -> Array:
    """A pyramid of steps 0.4 m deep, up to 15 cm high each, around a flat top 2 m wide."""
    away = np.maximum(np.abs(x), np.abs(y))
    steps = np.floor(np.clip(away - 1.0, 0.0, None) / 0.4)
    last = np.floor((TILE_M / 2 - RIM_M - 1.0) / 0.4)
    return 0.15 * level * np.clip(last - steps, 0.0, None)


KINDS: dict[str, Callable[[np.random.Generator, Array, Array, float], Array]] = {
    "waves": waves,
    "noise": noise,
    "stairs": stairs,
}
"""Each `(rng, x, y, level) -> heights` over one tile, from its middle."""
TILES = tuple(f"{kind} {level:g}" for kind in KINDS for level in LEVELS)


@lru_cache(maxsize=4)
def terrain(seed: int) -> Terrain:
    """All kinds along y, all levels along x."""
    rng = np.random.default_rng(seed)
    size = round(TILE_M / CELL_M)
    line = (np.arange(size) - (size - 1) / 2) * CELL_M
    x, y = np.meshgrid(line, line)
    rim = np.clip((TILE_M / 2 - np.maximum(np.abs(x), np.abs(y))) / RIM_M, 0.0, 1.0)
    bands = [[rim * kind(rng, x, y, level) for level in LEVELS] for kind in KINDS.values()]
    heights = np.block(bands)
    rows, columns = len(KINDS), len(LEVELS)
    origins = [
        ((column - (columns - 1) / 2) * TILE_M, (row - (rows - 1) / 2) * TILE_M)
        for row in range(rows)
        for column in range(columns)
    ]
    return Terrain(heights, CELL_M, np.array(origins), TILES)


def height_at(xp: Any, ground: Terrain, spots: Array) -> Array:
    """Height of the ground at places [..., 2], linear between the field's points; beyond its edge that of the edge."""
    heights = constant(xp, ground.heights, spots)
    rows, columns = ground.heights.shape
    x = xp.clip(spots[..., 0] / ground.cell + (columns - 1) / 2, 0.0, columns - 1.001)
    y = xp.clip(spots[..., 1] / ground.cell + (rows - 1) / 2, 0.0, rows - 1.001)
    column, row = (xp.asarray(xp.floor(v), dtype=int) for v in (x, y))
    right, up = x - column, y - row
    near = (1.0 - right) * heights[row, column] + right * heights[row, column + 1]
    far = (1.0 - right) * heights[row + 1, column] + right * heights[row + 1, column + 1]
    return (1.0 - up) * near + up * far


def scan(xp: Any, ground: Terrain, base: Array, heading: Array) -> Array:
    """Heights at `SCAN_POINTS` around bases [N, 2] that look along `heading` [N], rad; [N, P], m."""
    points = constant(xp, SCAN_POINTS, base)
    cos, sin = xp.cos(heading)[:, None], xp.sin(heading)[:, None]
    x = base[:, :1] + cos * points[:, 0] - sin * points[:, 1]
    y = base[:, 1:] + sin * points[:, 0] + cos * points[:, 1]
    return height_at(xp, ground, xp.stack((x, y), -1))
