"""Scenario files for `metadrive:Scenario`, recorded from an expert's episodes on generated roads.

    python -m robo_rlft.envs.metadrive.scenarios FOLDER --episodes 50 --expert idm

Files of real traffic (Waymo, nuScenes, nuPlan) in the same format come from ScenarioNet.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import pickle
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robo_rlft.envs.metadrive.tasks import SUMMARY_FILE, find
from robo_rlft.errors import ConfigError, DataError

MAPPING_FILE = "dataset_mapping.pkl"


@dataclass(frozen=True)
class Exported:
    """What was recorded.

    Attributes:
        written: scenarios in the folder.
        tried: episodes driven for them.
    """

    written: int
    tried: int


def export_scenarios(
    folder: Path | str,
    episodes: int,
    *,
    task: str = "Procedural",
    first_seed: int = 0,
    keep: str = "success",
    workers: int = 1,
    **params: Any,
) -> Exported:
    """Drive episodes by the task's expert and write each as a ScenarioDescription file.

    Args:
        folder: must not hold scenarios yet.
        episodes: scenarios to write.
        task: a task on generated roads with one car.
        first_seed: of the first episode; the others follow.
        keep: `success` writes only episodes that arrive, `all` every one.
        workers: processes.
        params: of the task.

    Raises:
        ConfigError: a task or parameter that is not known, or fewer than one in twenty episodes arrive.
        DataError: the folder has scenarios.
    """
    found, folder = find(task), Path(folder)
    if found.agents or found.replays or keep not in ("success", "all"):
        raise ConfigError(f"cannot export task {task} with keep={keep}: choose Procedural or Safe, success or all")
    if (folder / SUMMARY_FILE).exists():
        raise DataError(f"{folder} holds scenarios already: give a new folder")
    settled = found.settled(params)
    folder.mkdir(parents=True, exist_ok=True)
    summary, tried = _drive(folder, episodes, task, settled, first_seed, keep, workers)
    if len(summary) < episodes:
        raise ConfigError(f"{len(summary)} of {tried} episodes arrived, {episodes} were wanted: use a better expert")
    _write(folder / SUMMARY_FILE, summary)
    _write(folder / MAPPING_FILE, dict.fromkeys(summary, ""))
    return Exported(len(summary), tried)


def _drive(
    folder: Path, episodes: int, task: str, params: Mapping[str, Any], first_seed: int, keep: str, workers: int
) -> tuple[dict[str, Any], int]:
    """Rounds of episodes until there are enough: name and summary of each file, and how many were driven."""
    summary: dict[str, Any] = {}
    tried, most = 0, 20 * episodes
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(workers, context, initializer=_open, initargs=(task, dict(params))) as pool:
        while len(summary) < episodes and tried < most:
            count = min(max(workers, episodes - len(summary)), most - tried)
            seeds = range(first_seed + tried, first_seed + tried + count)
            tried += count
            for name, about in pool.map(_record, seeds, [str(folder)] * count, [keep] * count):
                if name and len(summary) < episodes:
                    summary[name] = about
                elif name:
                    (folder / name).unlink()
    return summary, tried


_drives: list[Any] = []
"""The one car of this process."""


def _open(task: str, params: Mapping[str, Any]) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    from robo_rlft.envs.metadrive.drive import Drive

    _drives.append(Drive(task, params, (), (84, 84)))


def _record(seed: int, folder: str, keep: str) -> tuple[str, Any]:
    """One episode as a file of the folder; its name and summary, or nothing where it is not kept."""
    from metadrive.scenario.utils import (
        convert_recorded_scenario_exported,
        dict_recursive_remove_array_and_set,
        extract_dataset_summary_and_mapping,
    )

    [drive] = _drives
    drive.world.config["record_episode"] = True
    drive.reset(seed, 0)
    while True:
        outcome = drive.step(drive.expert_action())
        if outcome.terminated or outcome.truncated or outcome.metrics["max_step"]:
            break
    if keep == "success" and not outcome.success:
        return "", None
    scenario = convert_recorded_scenario_exported(drive.world.engine.dump_episode(), to_dict=False)
    # Names are those of the seeds, in their order: an index means the same scenario on every machine.
    scenario["id"] = scenario["metadata"]["id"] = scenario["metadata"]["scenario_id"] = f"{seed:010d}"
    summary, _, files = extract_dataset_summary_and_mapping([scenario], "robo_rlft", "1")
    [(name, content)] = files.items()
    _write(Path(folder) / name, content)
    return name, dict_recursive_remove_array_and_set(summary[name])


def _write(path: Path, content: Any) -> None:
    partial = path.with_suffix(".partial")
    partial.write_bytes(pickle.dumps(content))
    partial.replace(path)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line of this module."""
    parser = argparse.ArgumentParser(description="record scenario files from an expert's episodes on generated roads")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--task", default="Procedural")
    parser.add_argument("--expert", default="ppo")
    parser.add_argument("--map", type=int, default=3, help="blocks of road")
    parser.add_argument("--traffic-density", type=float, default=0.1)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--keep", default="success", choices=("success", "all"))
    parser.add_argument("--workers", type=int, default=1)
    given = vars(parser.parse_args(arguments))
    done = export_scenarios(given.pop("folder"), given.pop("episodes"), **given)
    print(f"{done.written} scenarios of {done.tried} episodes")


if __name__ == "__main__":
    main()
