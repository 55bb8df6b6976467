"""Speed of image observations beside OpenGL's own: images per second by size and number of environments.

Ours draws every environment of a batch: copy its state, pose the model, build the scene, render, read the pixels. The
limit renders and reads one finished scene again and again (`mjr_render` and `mjr_readPixels` alone). Both take turns in
each round, and each keeps its best round. Where the package mujoco_warp is installed, its ray tracer takes part.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robo_rlft import envs
from robo_rlft.envs.images import ImagesConfig
from robo_rlft.envs.mujoco.engine import MujocoEnv
from robo_rlft.envs.mujoco.render import FAST, View, camera_number
from robo_rlft.errors import ConfigError
from robo_rlft.training.bench.envs import Timing
from robo_rlft.training.bench.rows import BenchRow, print_table, write_json

ROUNDS = 5
SIZES = (64, 96, 128)
NUM_ENVS = (1, 16, 64)
_IMAGES = 64
"""Images of one round, at least."""


def run(
    json_path: str | Path | None = None,
    env_id: str = "ArmPegInsert",
    sizes: Sequence[int] = SIZES,
    num_envs: Sequence[int] = NUM_ENVS,
) -> list[dict[str, Any]]:
    """Measure, print a table and return one row per case.

    Args:
        json_path: file to write the rows to, or None.
        env_id: a task of the MuJoCo engine with cameras; its first one is looked through.
        sizes: sides of the square images in pixels.
        num_envs: batch sizes.

    Raises:
        ConfigError: an environment of another engine, or without cameras.
        UserError: this machine has no OpenGL driver.
    """
    rows = [_measure(env_id, size, n) for size in sizes for n in num_envs]
    print_table(rows, "images per second")
    return write_json(rows, json_path) if json_path else [vars(row) for row in rows]


def _measure(env_id: str, size: int, num: int) -> BenchRow:
    camera = _first_camera(env_id)
    env = envs.make(env_id, num, seed=0, images=ImagesConfig([camera], [size, size]))
    assert isinstance(env, MujocoEnv)
    env.reset(seed=0)
    repeats = -(-_IMAGES // num)
    view, image = View(env.simulation.model, (size, size), FAST), np.empty((size, size, 3), np.uint8)
    env.simulation.batch.get_data(0, view.data)
    view.pose(view.model, view.data)
    view.draw(camera_number(view.model, camera), image)
    acts: dict[str, Callable[[], object]] = {
        "ours": lambda: env.look_again(),
        "limit": lambda: [view.redraw(image) for _ in range(num)],
    }
    if importlib.util.find_spec("mujoco_warp") is not None:
        acts["mujoco_warp"] = _ray_tracer(env, camera, size)
    timings = {name: Timing() for name in acts}
    for _ in range(ROUNDS):
        for name, act in acts.items():
            timings[name].keep(*_timed(act, repeats))
    view.close()
    env.close()
    return _row(f"{env_id}/{size}x{size}", num, repeats * num, timings)


def _row(name: str, num: int, images: int, timings: dict[str, Timing]) -> BenchRow:
    wall = {k: images / t.wall for k, t in timings.items()}
    cpu = {f"{k}_per_cpu_second": images / t.cpu for k, t in timings.items()}
    peers = {k: wall["ours"] / v for k, v in wall.items() if k not in ("ours", "limit")}
    detail = cpu | {"limit": wall["limit"], "cpu_limit_ratio": timings["limit"].cpu / timings["ours"].cpu}
    return BenchRow(name, num, wall["ours"], "images/s", wall["ours"] / wall["limit"], peers, detail)


def _timed(act: Callable[[], object], repeats: int) -> tuple[float, float]:
    act()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        act()
    return time.perf_counter() - wall, time.process_time() - cpu


def _first_camera(env_id: str) -> str:
    env = envs.make(env_id)
    cameras = env.task.cameras if isinstance(env, MujocoEnv) else ()
    env.close()
    if not cameras:
        raise ConfigError(f"bench render needs a MuJoCo task with cameras, and {env_id} is none: choose another env.id")
    return cameras[0]


def _ray_tracer(env: MujocoEnv, camera: str, size: int) -> Callable[[], object]:
    """mujoco_warp's ray tracer at the same states: their bounding volumes anew, then the image of every world."""
    import mujoco_warp  # pyright: ignore[reportMissingImports]

    view = View(env.simulation.model, (size, size), FAST)
    model, data = view.model, view.data
    env.simulation.batch.get_data(0, data)
    view.pose(model, data)
    view.close()
    warp_model, worlds = mujoco_warp.put_model(model), mujoco_warp.put_data(model, data, nworld=env.num_envs)
    context = mujoco_warp.create_render_context(
        model, nworld=env.num_envs, cam_res=(size, size), render_rgb=True, render_depth=False, cam_active=[camera]
    )

    def trace() -> None:
        mujoco_warp.refit_bvh(warp_model, worlds, context)
        mujoco_warp.render(warp_model, worlds, context)

    return trace
