"""Demonstrations from ManiSkill's own motion planners, as seeds and actions in one npz file.

    make planner                                                            # once: its own environment, with numpy 1
    .venv-planner/bin/python tools/maniskill_planner/plan.py PegInsertionSide-v1 --episodes 200 --out peg.npz
    robo-rlft collect recipe=bc/maniskill_peg_insertion collect.source=plans:peg.npz

`collect` plays the actions again from the same seeds and records what its own environment observes.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

CONTROL_MODE = "pd_joint_pos"
FIRST_SEED = 3_000_000
"""Apart from the seeds of training, evaluation and recording by other sources."""


@dataclass(frozen=True)
class Plan:
    """One attempt.

    Attributes:
        seed: of the episode.
        actions: joint positions to go to and the gripper, [T, A]; none where planning failed.
        success: the task was done at some time.
    """

    seed: int
    actions: np.ndarray
    success: bool


class Recorder:
    """The environment as a planner sees it, noting what it does."""

    def __init__(self, env: Any) -> None:
        self.unwrapped = env
        self.actions: list[np.ndarray] = []
        self.success = False

    def reset(self, **how: Any) -> Any:
        """See `gymnasium.Env`."""
        self.actions, self.success = [], False
        return self.unwrapped.reset(**how)

    def step(self, action: np.ndarray) -> Any:
        """See `gymnasium.Env`."""
        self.actions.append(np.asarray(action, np.float32))
        result = self.unwrapped.step(self.actions[-1])
        self.success |= bool(result[4]["success"])
        return result


class Planner:
    """A task with its solution; one per process."""

    def __init__(self, task: str) -> None:
        from robo_rlft.envs.maniskill import library

        self.solve = solutions()[task]
        arguments = {"obs_mode": "none", "reward_mode": "none", "control_mode": CONTROL_MODE}
        backends = {"sim_backend": "physx_cpu", "render_backend": "none"}
        self.recorder = Recorder(library.build(task, "", arguments | backends))

    def plan(self, seed: int) -> Plan:
        """Solve one episode."""
        # The solutions print every failed attempt, and raise where none succeeds.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception):
            self.solve(self.recorder, seed=seed, debug=False, vis=False)
            return Plan(seed, np.array(self.recorder.actions, np.float32), self.recorder.success)
        return Plan(seed, np.zeros((0, 0), np.float32), False)


def solutions() -> dict[str, Any]:
    """ManiSkill's solutions by task."""
    from robo_rlft.envs.maniskill import library

    library.import_mani_skill()
    from mani_skill.examples.motionplanning.panda import run

    return run.MP_SOLUTIONS


def main() -> None:
    """Plan until there are enough successes."""
    options = _options()
    _check_numpy()
    if options.task not in (known := solutions()):
        sys.exit(f"error: ManiSkill has no motion-planning solution of {options.task}: choose {', '.join(known)}")
    kept: list[Plan] = []
    tried, begin = 0, time.perf_counter()
    limit = options.max_attempts or 10 * options.episodes
    context = multiprocessing.get_context("spawn")
    with context.Pool(options.jobs, initializer=_begin, initargs=(options.task,)) as pool:
        seeds = range(options.first_seed, options.first_seed + limit)
        for plan in pool.imap(_plan, seeds):
            tried += 1
            kept += [plan] if plan.success else []
            print(f"\r{len(kept)}/{options.episodes} of {tried} attempts", end="", flush=True)
            if len(kept) == options.episodes:
                break
        pool.terminate()
    print(f", {time.perf_counter() - begin:.0f} s")
    if len(kept) < options.episodes:
        sys.exit(f"error: {len(kept)} of {options.episodes} episodes in {tried} attempts: raise --max-attempts")
    save(options.out, options.task, kept, tried)
    longest = max(len(plan.actions) for plan in kept)
    print(f"{options.out}: {len(kept)} episodes; env.params.max_episode_steps={longest} holds the longest")


def save(path: str, task: str, plans: list[Plan], tried: int) -> None:
    """Write the file at once or not at all."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez_compressed(
            file,
            task=task,
            control_mode=CONTROL_MODE,
            seeds=np.array([plan.seed for plan in plans], np.int64),
            lengths=np.array([len(plan.actions) for plan in plans], np.int64),
            actions=np.concatenate([plan.actions for plan in plans]),
            attempts=tried,
            source="mani_skill.examples.motionplanning",
        )
    os.replace(partial, target)


def _check_numpy() -> None:
    if int(np.__version__.split(".")[0]) >= 2:
        sys.exit(f"error: the motion planner crashes with numpy {np.__version__}: run `make planner`, then this with "
                 ".venv-planner/bin/python")  # fmt: skip


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", help="ManiSkill's id, as PickCube-v1")
    parser.add_argument("--episodes", type=int, default=100, help="successful episodes to write")
    parser.add_argument("--out", required=True, help="file to write, .npz")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--max-attempts", type=int, default=0, help="episodes to try; 0 means 10 x episodes")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    return parser.parse_args()


_planner: Planner | None = None


def _begin(task: str) -> None:
    global _planner
    import torch

    torch.set_num_threads(1)
    _planner = Planner(task)


def _plan(seed: int) -> Plan:
    assert _planner is not None
    return _planner.plan(seed)


if __name__ == "__main__":
    main()
