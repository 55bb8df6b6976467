"""What was measured, as `benchmarks.record` keeps it: the only source of the result pages.

docs/results/records/
  NAME/RUN/      config.yaml  versions.json  finished.json  command.txt  metrics.csv  evaluation/*.json  sweeps/*.json
  NAME/          summary.json and evaluation/controller.json too, where the runs are a demo's
  bench/         NAME.json: versions, machine, git and the rows of one bench
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.thinned import from_csv
from robo_rlft.errors import RunError
from robo_rlft.training.metrics import Columns
from robo_rlft.training.report import SWEEPS, focus_of
from robo_rlft.training.run import read_config
from robo_rlft.training.statistics import Interval

RESULTS = Path(__file__).parents[1] / "docs" / "results"
RECORDS = RESULTS / "records"
BENCH, SUMMARY, METRICS, COMMAND = "bench", "summary.json", "metrics.csv", "command.txt"


@dataclass(frozen=True)
class Score:
    """One evaluation's figure.

    Attributes:
        value: success rate or mean return, with its 95 % interval over episodes.
        share: it is a success rate.
        episodes: how many were evaluated.
    """

    value: Interval
    share: bool
    episodes: int


@dataclass(frozen=True)
class RunRecord:
    """A finished run.

    Attributes:
        name: of its folder.
        config: its settings.
        versions: verb, packages, machine and source.
        finished: counters at its end.
        command: what makes it again.
        columns: thinned metrics (`benchmarks.thinned`).
        evaluations: by name.
        sweeps: scores over settings of the acting policy, by setting.
    """

    name: str
    config: Mapping[str, Any]
    versions: Mapping[str, Any]
    finished: Mapping[str, Any]
    command: str
    columns: Columns
    evaluations: Mapping[str, Mapping[str, Any]]
    sweeps: Mapping[str, Mapping[str, Any]]

    @classmethod
    def load(cls, folder: Path) -> RunRecord:
        """Read one run's folder.

        Raises:
            RunError: a file is missing or damaged.
        """
        evaluations = [read_json(file) for file in sorted((folder / "evaluation").glob("*.json"))]
        return cls(
            folder.name,
            read_config(folder),
            read_json(folder / "versions.json"),
            read_json(folder / "finished.json"),
            _text(folder / COMMAND).strip(),
            from_csv(_text(folder / METRICS)),
            {evaluation["name"]: evaluation for evaluation in evaluations},
            {sweep["key"]: sweep for sweep in map(read_json, sorted((folder / SWEEPS).glob("*.json")))},
        )

    @property
    def verb(self) -> str:
        """`pretrain` or `finetune`."""
        return self.versions["verb"]

    @property
    def recipe(self) -> str:
        """`method/task`."""
        return self.config.get("recipe", "")

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.config["seed"]

    @property
    def result(self) -> Score | None:
        """Its own evaluation, of the last checkpoint."""
        found = focus_of(list(self.evaluations.values()))
        if found is None:
            return None
        return Score(Interval(**(found["success"] or found["return"])), bool(found["success"]), found["episodes"])


@dataclass(frozen=True)
class Records:
    """Everything that was recorded.

    Attributes:
        tasks: runs by name of the record, in order of their seed.
        demo: a demo's summary with its runs under `runs`, or None.
        benches: versions, machine and rows by name of the bench.
    """

    tasks: Mapping[str, list[RunRecord]]
    demo: Mapping[str, Any] | None
    benches: Mapping[str, Mapping[str, Any]]

    @classmethod
    def load(cls, folder: Path = RECORDS) -> Records:
        """Read every record.

        Raises:
            RunError: a file is missing or damaged, or two records hold a demo.
        """
        names = sorted(path for path in folder.glob("*") if path.is_dir() and path.name != BENCH)
        demos = [path for path in names if (path / SUMMARY).is_file()]
        if len(demos) > 1:
            raise RunError(f"{' and '.join(p.name for p in demos)} are records of a demo: remove all but one")
        return cls(
            {path.name: _runs(path) for path in names if path not in demos},
            {**read_json(demos[0] / SUMMARY), "runs": _runs(demos[0])} if demos else None,
            {file.stem: read_json(file) for file in sorted((folder / BENCH).glob("*.json"))},
        )


def read_json(file: Path) -> dict[str, Any]:
    """A record's JSON file.

    Raises:
        RunError: it is missing or damaged.
    """
    try:
        return json.loads(_text(file))
    except ValueError as error:
        raise RunError(f"{file} is damaged: record the run again") from error


def _runs(folder: Path) -> list[RunRecord]:
    runs = [RunRecord.load(path.parent) for path in sorted(folder.glob("*/config.yaml"))]
    return sorted(runs, key=lambda run: (run.seed, run.name))


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise RunError(f"{file} is missing: record the run again") from error
