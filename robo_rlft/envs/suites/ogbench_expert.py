"""OGBench's Markov oracles, told in turn what each part of a scene still needs.

The oracles move a cube, a drawer or a window to where it belongs, or press a button; OGBench uses them to collect play.
What comes next is worked out here from the goal: cubes from the bottom of a stack up, a lock before what it locks, and
in a puzzle, where a press turns its neighbours too, the fewest presses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from robo_rlft.envs.suites.borrowed_random import drawing_from

Info = dict[str, Any]
_OPEN_M = -0.16
"""Of the scene's drawer, pulled out."""
_NEARLY_M = 0.04
_STILL = np.zeros(5)


class Oracles:
    """Chooses an oracle and its target, follows it until it is done, and chooses the next.

    Args:
        env: an OGBench manipulation environment in its mode `task`.
    """

    def __init__(self, env: Any) -> None:
        self._env = env
        self.begin(0)

    def begin(self, seed: int) -> None:
        """A new episode."""
        self._seed, self._count = seed, 0
        self._oracle: Any = None
        self._target: Callable[[], Info] = dict

    def action(self) -> Float[np.ndarray, " action"]:
        """The next action, [5]; zeros where nothing is left to do."""
        if self._oracle is None or self._oracle.done:
            self._choose()
        if self._oracle is None:
            return _STILL.copy()
        info = {**self._env.compute_ob_info(), **self._target()}
        return np.clip(self._oracle.select_action(None, info), -1.0, 1.0)

    def _choose(self) -> None:
        found = next(_wanted(self._env), None)
        self._oracle = None
        if found is None:
            return
        kind, self._target = found
        self._oracle = _made(kind, self._env)
        self._count += 1
        with drawing_from(self._seed + 7919 * self._count):
            self._oracle.reset(None, {**self._env.compute_ob_info(), **self._target()})


def _made(kind: str, env: Any) -> Any:
    from ogbench.manipspace.oracles.markov import button_markov, cube_markov, drawer_markov, window_markov

    if kind == "button":
        return button_markov.ButtonMarkovOracle(env=env, gripper_always_closed=not hasattr(env, "_num_cubes"))
    oracles = {
        "cube": cube_markov.CubeMarkovOracle,
        "drawer": drawer_markov.DrawerMarkovOracle,
        "window": window_markov.WindowMarkovOracle,
    }
    return oracles[kind](env=env)


Wish = tuple[str, Callable[[], Info]]
"""An oracle, and what it is told besides the state."""


def _wanted(env: Any) -> Iterator[Wish]:
    """What is to be done, the first thing first."""
    if hasattr(env, "_window_site_id"):
        yield from _scene(env)
    elif hasattr(env, "_num_cubes"):
        yield from _cubes(env, env._compute_successes())
    else:
        yield from (_press(env, i) for i in np.flatnonzero(presses(*_puzzle(env))))


def _scene(env: Any) -> Iterator[Wish]:
    cubes, buttons, drawer, window = env._compute_successes()
    goal = env._data.mocap_pos[env._cube_target_mocap_ids[0]]
    inside = goal[1] < env._target_sampling_bounds[0][1]
    if not all(cubes):
        if inside and env._data.joint("drawer_slide").qpos[0] > _OPEN_M + _NEARLY_M:
            yield from _moved(env, "drawer", _OPEN_M)
        yield from _cubes(env, cubes)
    if not drawer:
        yield from _moved(env, "drawer", env._target_drawer_pos)
    if not window:
        yield from _moved(env, "window", env._target_window_pos)
    yield from (_press(env, i) for i, done in enumerate(buttons) if not done)


def _moved(env: Any, part: str, to: float) -> Iterator[Wish]:
    """Slide a drawer (against y) or a window (along x), unlocked first."""
    lock, axis, sign = {"drawer": (0, 1, -1.0), "window": (1, 0, 1.0)}[part]
    if env._cur_button_states[lock] == 0:
        yield _press(env, lock)

    def target() -> Info:
        info = env.compute_ob_info()
        handle = info[f"privileged/{part}_handle_pos"]
        handle[axis] += sign * (to - info[f"privileged/{part}_pos"][0])
        return {f"privileged/target_{part}_pos": np.array([to]), f"privileged/target_{part}_handle_pos": handle}

    yield part, target


def _cubes(env: Any, done: list[bool]) -> Iterator[Wish]:
    ids = env._cube_target_mocap_ids
    low_first = sorted(range(env._num_cubes), key=lambda i: float(env._data.mocap_pos[ids[i]][2]))
    yield from (_carried(env, i) for i in low_first if not done[i])


def _carried(env: Any, cube: int) -> Wish:
    def target() -> Info:
        place = env._cube_target_mocap_ids[cube]
        return {
            "privileged/target_block": cube,
            "privileged/target_block_pos": env._data.mocap_pos[place].copy(),
            "privileged/target_block_yaw": np.zeros(1),
        }

    return "cube", target


def _press(env: Any, button: int) -> Wish:
    wished = 1 - int(env._cur_button_states[button])

    def target() -> Info:
        top = env._data.site_xpos[env._button_site_ids[button]].copy()
        return {
            "privileged/target_button": button,
            "privileged/target_button_state": wished,
            "privileged/target_button_top_pos": top,
        }

    return "button", target


def _puzzle(env: Any) -> tuple[Int[np.ndarray, "row column"], Int[np.ndarray, "row column"]]:
    shape = (env._num_rows, env._num_cols)
    return np.reshape(env._cur_button_states, shape), np.reshape(env._target_button_states, shape)


def presses(now: Int[np.ndarray, "row column"], goal: Int[np.ndarray, "row column"]) -> Int[np.ndarray, " button"]:
    """The fewest presses that turn one pattern of lights into another, each press turning its neighbours too: 0 or 1
    per button, row by row.

    Every choice for the first row decides those below it, since a light can then be put right only from below.
    """
    rows, columns = now.shape
    wrong = (now + goal) % 2
    best: np.ndarray | None = None
    for first in product((0, 1), repeat=columns):
        tried = _chased(wrong, np.array(first))
        if tried is not None and (best is None or tried.sum() < best.sum()):
            best = tried
    assert best is not None, f"no presses lead from {now.tolist()} to {goal.tolist()}"
    return best.reshape(rows * columns)


def _chased(wrong: Int[np.ndarray, "row column"], first: Int[np.ndarray, " column"]) -> np.ndarray | None:
    left, pressed = wrong.copy(), np.zeros_like(wrong)
    for row in range(len(wrong)):
        pressed[row] = first if row == 0 else left[row - 1]
        for column in np.flatnonzero(pressed[row]):
            _turn(left, row, int(column))
    return None if left.any() else pressed


def _turn(lights: Int[np.ndarray, "row column"], row: int, column: int) -> None:
    for down, right in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)):
        y, x = row + down, column + right
        if 0 <= y < lights.shape[0] and 0 <= x < lights.shape[1]:
            lights[y, x] ^= 1
