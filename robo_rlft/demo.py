"""The whole way in one command: demonstrations, cloning, fine-tuning, evaluation, controller. The verb `demo`.

Every stage is a verb of its own on a folder under `runs/demo`; a demo that was cut off goes on where it was.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from robo_rlft.data import Dataset
from robo_rlft.errors import DataError
from robo_rlft.export.bundle import write_bundle
from robo_rlft.export.run import run as run_bundle
from robo_rlft.training.collect import collect
from robo_rlft.training.config import Config
from robo_rlft.training.evaluate import evaluate, percent, write_record
from robo_rlft.training.files import atomic_write, make_folder
from robo_rlft.training.finetune import finetune
from robo_rlft.training.paths import ROOT
from robo_rlft.training.policies import load_policy
from robo_rlft.training.pretrain import pretrain
from robo_rlft.training.progress import console, duration, summary_table
from robo_rlft.training.report import report_for
from robo_rlft.training.statistics import Interval

HOME = ROOT / "demo"
STAGES = ("pretrained", "bc_longer", "finetuned")
"""The evaluated policies in the order of the table; the exported controller follows."""
MEANING = {
    "pretrained": "cloned from the demonstrations",
    "bc_longer": "cloned on for as long as fine-tuning took",
    "finetuned": "fine-tuned with ReinFlow",
    "controller": "exported, without torch",
}


def demo(config: Config, *, home: Path = HOME) -> dict[str, Any]:
    """Run every stage and leave `summary.json` and `report.html`.

    Args:
        config: a recipe's settings.
        home: folder of everything the demo makes.

    Returns:
        The summary: success with its 95 % interval per policy, environment steps, wall seconds, episodes, the report.
    """
    make_folder(home)
    clock = _Clock(home / "clock.json")
    with clock.part("demonstrations"):
        _demonstrations(config, home)
    with clock.part("pre-training"):
        pretrain(_stage(config, home, "pretrain"))
    with clock.part("fine-tuning"):
        finetune(_stage(config, home, "finetune", checkpoint=home / "pretrain"))
    spent = _finished(home / "finetune")["wall_seconds"]
    with clock.part("longer cloning"):
        pretrain(_longer(config, home, spent))
    with clock.part("evaluation"):
        folders = dict(zip(STAGES, ("pretrain", "bc_longer", "finetune"), strict=True))
        records = {name: _evaluate(config, home, folder, name) for name, folder in folders.items()}
    with clock.part("controller"):
        records["controller"] = _controller(config, home)
    return _summarise(config, home, records, clock)


class _Clock:
    """Wall seconds per part, kept on disk so that a continued demo counts what was spent before.

    A part that runs again because it was cut off adds to what it had.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds: dict[str, float] = json.loads(path.read_bytes()) if path.is_file() else {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        console.rule(name)
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - start
            atomic_write(self.path, json.dumps(self.seconds).encode())


def _stage(config: Config, home: Path, folder: str, checkpoint: Path | None = None) -> Config:
    """The recipe's settings with the demo's folders."""
    stage = copy.deepcopy(config)
    stage.data.path = str(home / "demos.zarr")
    stage.run.dir = str(home / folder)
    stage.run.checkpoint = str(checkpoint) if checkpoint else ""
    return stage


def _longer(config: Config, home: Path, seconds: float) -> Config:
    """Cloning goes on from the pre-trained weights for the wall time of fine-tuning, on a fresh learning rate."""
    stage = _stage(config, home, "bc_longer", checkpoint=home / "pretrain")
    stage.bc.wall_seconds = round(seconds, 1)
    return stage


def _demonstrations(config: Config, home: Path) -> None:
    stage = _stage(config, home, "")
    try:
        have = Dataset.open(stage.data.path).num_episodes
    except DataError:
        have = 0
    if have >= config.collect.episodes:
        console.print(f"{stage.data.path} has its {have} episodes")
    else:
        collect(stage, overwrite=True)


def _evaluate(config: Config, home: Path, folder: str, name: str) -> dict[str, Any]:
    return evaluate(_stage(config, home, folder, checkpoint=home / folder), name=name)


def _controller(config: Config, home: Path) -> dict[str, Any]:
    policy, meta = load_policy(home / "finetune")
    source = {"run": "demo/finetune", "checkpoint": "last", "counters": meta["counters"]}
    bundle = write_bundle(policy, home / "controller", source=source, overwrite=True)
    record = run_bundle(bundle, config)
    write_record(home, record)
    return record


def _summarise(config: Config, home: Path, records: dict[str, dict[str, Any]], clock: _Clock) -> dict[str, Any]:
    summary: dict[str, Any] = {name: _result(record) for name, record in records.items()}
    summary |= {
        "env_steps": _finished(home / "finetune")["env_steps"],
        "wall_seconds": round(sum(clock.seconds.values()), 1),
        "episodes": config.evaluate.episodes,
        "demonstrations": config.collect.episodes,
        "parts": {name: round(seconds, 1) for name, seconds in clock.seconds.items()},
        "latency": records["controller"]["latency"],
        "report": str(home / "report.html"),
    }
    atomic_write(home / "summary.json", json.dumps(summary, indent=1).encode())
    report_for(home, title=f"{config.env.id}: from {config.collect.episodes} demonstrations to a controller")
    rows = [{"policy": n, "success": percent(Interval(**r["success"])), "": MEANING[n]} for n, r in records.items()]
    console.rule()
    title = f"{config.env.id}: {config.evaluate.episodes} episodes on seeds unused before, 95 % intervals"
    summary_table(title, rows)
    parts = ", ".join(f"{name} {duration(seconds)}" for name, seconds in clock.seconds.items())
    console.print(f"{duration(summary['wall_seconds'])} in all: {parts}", soft_wrap=True)
    console.print(f"fine-tuning took {summary['env_steps']:,} environment steps")
    console.print(f"report: {summary['report']}")
    return summary


def _result(record: dict[str, Any]) -> dict[str, Any]:
    success = record["success"]
    return {"success": success["mean"], "ci95": [success["low"], success["high"]]}


def _finished(run: Path) -> dict[str, Any]:
    return json.loads((run / "finished.json").read_bytes())
