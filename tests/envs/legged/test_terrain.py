"""The rough ground: what it promises, and that terms look where MuJoCo's height field is."""

from __future__ import annotations

import mujoco
import numpy as np
import torch

from robo_rlft.envs.legged.terrain import CELL_M, LEVELS, SCAN_POINTS, TILE_M, TILES, height_at, scan, terrain
from robo_rlft.envs.mujoco.tasks.legged import quadruped


def tile(name: str) -> np.ndarray:
    ground = terrain(0)
    half = round(TILE_M / CELL_M / 2)
    column, row = (ground.origins[TILES.index(name)] / CELL_M + np.array(ground.heights.shape)[::-1] / 2).astype(int)
    return ground.heights[row - half : row + half, column - half : column + half]


def test_levels_grow_and_rims_are_flat() -> None:
    for kind in ("waves", "noise", "stairs"):
        highest = [tile(f"{kind} {level:g}").max() for level in LEVELS]
        assert highest == sorted(highest)
        assert highest[0] < highest[-1] / 2
        for level in LEVELS:
            heights = tile(f"{kind} {level:g}")
            assert heights.min() >= 0.0
            assert max(heights[0].max(), heights[:, -1].max()) < 0.05
    np.testing.assert_allclose(np.diff(tile("stairs 1")[80]).max(), 0.15)


def test_the_seed_decides_the_ground() -> None:
    assert (terrain(0).heights == terrain.__wrapped__(0).heights).all()
    assert (terrain(1).heights != terrain(0).heights).any()


def test_heights_between_points_are_linear_with_numpy_and_torch() -> None:
    ground = terrain(0)
    rows, columns = ground.heights.shape
    corner = -np.array([columns - 1, rows - 1]) / 2 * CELL_M
    spot = corner + np.array([100.25, 50.5]) * CELL_M
    patch = ground.heights[50:52, 100:102]
    expected = (np.array([0.5, 0.5]) @ patch) @ np.array([0.75, 0.25])
    np.testing.assert_allclose(height_at(np, ground, spot[None]), [expected])
    np.testing.assert_allclose(height_at(torch, ground, torch.from_numpy(spot[None])).numpy(), [expected])
    far = np.array([[1e3, 1e3]])
    np.testing.assert_allclose(height_at(np, ground, far), [ground.heights[-1, -1]], atol=1e-3)


def test_the_scan_turns_with_the_robot() -> None:
    ground = terrain(0)
    base, heading = ground.origins[[5]] + 0.3, np.array([np.pi / 2])
    seen = scan(np, ground, base, heading)
    for i, (ahead, aside) in enumerate(SCAN_POINTS):
        np.testing.assert_allclose(seen[0, i], height_at(np, ground, base + np.array([[-aside, ahead]]))[0])


def test_mujoco_has_the_same_ground() -> None:
    params = quadruped.ROUGH.params
    model, ground = quadruped.rough_model(params), terrain(params["terrain_seed"])
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    rng = np.random.default_rng(0)
    rows, columns = ground.heights.shape
    # On points of the field, where triangles and bilinear patches agree.
    at = np.stack([rng.integers(2, columns - 2, 40), rng.integers(2, rows - 2, 40)], 1)
    spots = (at - np.array([columns - 1, rows - 1]) / 2) * CELL_M
    for spot, height in zip(spots, height_at(np, ground, spots), strict=True):
        hit = np.zeros(1, np.int32)
        start = np.array([*(spot + 1e-4), 5.0])
        distance = mujoco.mj_ray(model, data, start, np.array([0.0, 0.0, -1.0]), None, 1, -1, hit, None)
        np.testing.assert_allclose(5.0 - distance, height, atol=2e-3)
