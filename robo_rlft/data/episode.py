"""One recorded episode, and the checks it must pass before it enters a data set."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Shaped

from robo_rlft.errors import DataError
from robo_rlft.spec import ArraySpec, RobotSpec

NO_SEED = -1
"""Stored for an episode whose seed is not known."""


@dataclass
class Episode:
    """T control steps and the T + 1 observations around them.

    Attributes:
        observation: one array per key, first axis T + 1: before each step, and after the last one.
        action: what was commanded at each step, in the units of the robot's spec.
        reward: produced BY each step.
        terminated: the last step ended the task by its own rule.
        truncated: the recording stopped for another reason (time limit, operator).
        success: the task was done.
        task: instruction in words, or empty.
        seed: seed that reproduces the start in simulation, if there is one.
    """

    observation: dict[str, Shaped[np.ndarray, "step_and_last ..."]]
    action: Float32[np.ndarray, "step action"]
    reward: Float32[np.ndarray, " step"]
    terminated: bool
    truncated: bool
    success: bool
    task: str = ""
    seed: int | None = None

    @property
    def num_steps(self) -> int:
        """Control steps, T."""
        return len(self.action)

    def columns(self) -> dict[str, np.ndarray]:
        """The arrays of this episode under the names they have in a data set, step flags spelt out."""
        last = np.zeros(self.num_steps, bool)
        last[-1:] = True
        return {
            **{f"observation/{key}": value for key, value in self.observation.items()},
            "action": self.action,
            "reward": self.reward,
            "terminated": last & self.terminated,
            "truncated": last & self.truncated,
        }

    def digest(self) -> bytes:
        """SHA-256 over names, dtypes, shapes and bytes: does not depend on how a file is chunked or compressed."""
        total = hashlib.sha256()
        for name, value in sorted(self.columns().items()):
            total.update(f"{name}|{value.dtype.str}|{value.shape}|".encode())
            total.update(np.ascontiguousarray(value).data)
        seed = NO_SEED if self.seed is None else self.seed
        total.update(f"success={bool(self.success)}|seed={seed}|task={self.task}".encode())
        return total.digest()


def checked(episode: Episode, robot: RobotSpec, where: str) -> Episode:
    """The episode as arrays that fit the spec exactly; action and reward become float32.

    Args:
        episode: what was recorded.
        robot: the spec it must fit.
        where: how to call it in a message, e.g. "episode 12 for /data/pegs".

    Raises:
        DataError: naming the first key that does not fit, with what was expected and found.
    """
    ready = Episode(
        observation={key: np.ascontiguousarray(value) for key, value in episode.observation.items()},
        action=np.ascontiguousarray(episode.action, np.float32),
        reward=np.ascontiguousarray(episode.reward, np.float32),
        terminated=bool(episode.terminated),
        truncated=bool(episode.truncated),
        success=bool(episode.success),
        task=episode.task,
        seed=episode.seed,
    )
    for problem in _problems(ready, robot):
        raise DataError(f"{where}: {problem}")
    return ready


def _problems(episode: Episode, robot: RobotSpec) -> Iterator[str]:
    steps = episode.num_steps if episode.action.ndim else 0
    if steps == 0:
        yield "'action' is empty; an episode needs at least one step"
    if set(episode.observation) != set(robot.observation):
        yield f"observation keys are {sorted(episode.observation)}, the spec has {sorted(robot.observation)}"
    for key, spec in robot.observation.items():
        yield from _misfit(f"observation/{key}", episode.observation[key], spec, steps + 1)
    yield from _misfit("action", episode.action, robot.action, steps)
    yield from _misfit("reward", episode.reward, ArraySpec(()), steps)


def _misfit(key: str, value: np.ndarray, spec: ArraySpec, rows: int) -> Iterator[str]:
    if value.shape != (rows, *spec.shape):
        yield f"'{key}' has shape {value.shape}, expected {(rows, *spec.shape)} (T + 1 observations for T actions)"
    if value.dtype != np.dtype(spec.dtype):
        yield f"'{key}' is {value.dtype}, the spec says {spec.dtype}"
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        row = int(np.argmin(np.isfinite(value).reshape(rows, -1).all(1)))
        yield f"'{key}' holds NaN or infinity, first at step {row}"
