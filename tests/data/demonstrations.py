"""Random recordings for the tests of the data package."""

from __future__ import annotations

import numpy as np

from robo_rlft.data import DatasetWriter, Episode
from robo_rlft.spec import ArraySpec, RobotSpec

CAMERA = "image/front"
ROBOT = RobotSpec("Toy", {"policy": ArraySpec((3,)), "critic": ArraySpec((2, 2))}, ArraySpec((2,)), 20.0, 50)
SEEING = RobotSpec("Toy", {"policy": ArraySpec((3,)), CAMERA: ArraySpec((4, 5, 3), "uint8")}, ArraySpec((2,)), 20.0, 50)


def episode(steps: int, seed: int = 0, robot: RobotSpec = ROBOT, **values) -> Episode:
    rng = np.random.default_rng(seed)

    def rows(spec: ArraySpec, count: int) -> np.ndarray:
        if spec.dtype == "uint8":
            return rng.integers(0, 256, (count, *spec.shape), np.uint8)
        return rng.normal(size=(count, *spec.shape)).astype(spec.dtype)

    known = {
        "observation": {key: rows(spec, steps + 1) for key, spec in robot.observation.items()},
        "action": rows(robot.action, steps),
        "reward": rng.normal(size=steps).astype(np.float32),
        "terminated": bool(seed % 2),
        "truncated": not seed % 2,
        "success": bool(seed % 2),
        "task": f"task {seed % 3}",
        "seed": seed if seed % 4 else None,
    }
    return Episode(**{**known, **values})


def write(path, lengths, robot: RobotSpec = ROBOT, **options) -> list[Episode]:
    episodes = [episode(steps, seed, robot) for seed, steps in enumerate(lengths)]
    with DatasetWriter(path, robot, {"made_by": "test"}, **options) as writer:
        for recorded in episodes:
            writer.append(recorded)
    return episodes


def same(a: Episode, b: Episode) -> bool:
    left, right = a.columns(), b.columns()
    return (
        left.keys() == right.keys()
        and all(np.array_equal(left[k], right[k]) and left[k].dtype == right[k].dtype for k in left)
        and (a.success, a.task, a.seed) == (b.success, b.task, b.seed)
    )
