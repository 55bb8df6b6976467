"""Keep what a finished run measured: its small text goes to docs/results/records, from which the result pages are made.

python -m benchmarks.record runs/reinflow/hopper/*-seed0 --name hopper      runs: settings, evaluations, metrics
python -m benchmarks.record runs/demo --name demo                           a demo: its summary and all its runs
python -m benchmarks.record --bench build/bench/envs.json --name envs       a bench, on the machine that ran it
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path, PurePath
from typing import Any

import yaml

from benchmarks.records import BENCH, COMMAND, METRICS, RECORDS, SUMMARY
from benchmarks.thinned import to_csv
from robo_rlft.errors import RunError, UserError
from robo_rlft.training.compare import differences, flatten, plain
from robo_rlft.training.configure import compose
from robo_rlft.training.metrics import read
from robo_rlft.training.paths import ROOT as RUNS
from robo_rlft.training.paths import SCRATCH, run_folder
from robo_rlft.training.report import IN_TRAINING, SWEEPS, find_runs
from robo_rlft.training.run import read_config
from robo_rlft.training.settings import is_open
from robo_rlft.training.versions import environment

MACHINE_SETTINGS = (
    "recipe",
    "seed",
    "run.dir",
    "run.save_every",
    "run.tensorboard",
    "run.wandb",
    "data.path",
    "threads",
    "env.threads",
    "collect",
    "evaluate",
    "export",
)
"""Settings that a command to repeat a run leaves out, or writes by itself: places, logging, machine, other verbs."""
UNREAD = {"pretrain": ("ppo", "run.eval_every", "run.eval_episodes"), "finetune": ("bc",)}
"""Settings that a verb does not read."""


def main(argv: Sequence[str] | None = None, records: Path = RECORDS) -> int:
    """Keep runs, demos or one bench; returns the exit status."""
    given = _arguments(argv)
    try:
        kept = _keep(given, records)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for path in kept:
        print(f"recorded {path}")
    return 0


def record_runs(folders: Sequence[Path], target: Path) -> list[Path]:
    """Keep finished runs under `target`, one folder each, replacing what a run of that name left before.

    Raises:
        RunError: a folder is no run, is unfinished, was not evaluated, or an evaluation is not of its last state.
    """
    for folder in folders:
        _check_finished(folder)
    return [_record_run(folder, target / folder.resolve().name) for folder in folders]


def record_demo(folder: Path, target: Path) -> list[Path]:
    """Keep a demo: `summary.json`, the controller's evaluation, and every run in it.

    Raises:
        RunError: a run in it is unfinished.
    """
    runs = record_runs(find_runs(folder), target)
    _write_json(target / SUMMARY, _read(folder / SUMMARY))
    _copy_evaluations(folder, target)
    return [target, *runs]


def record_bench(file: Path, target: Path) -> Path:
    """Keep the rows of a bench with a description of this machine, which is taken to be the one that ran it.

    Raises:
        RunError: the file is no output of `robo-rlft bench`.
    """
    rows = _read(file)
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "limit_ratio" in row for row in rows):
        raise RunError(f"{file} does not hold the rows of a bench: write them with robo-rlft bench envs --json {file}")
    return _write_json(target, {**environment(), "rows": rows})


def without_places(value: Any) -> Any:
    """The same plain data with absolute paths cut to their last name: they mean nothing on another machine."""
    if isinstance(value, Mapping):
        return {key: without_places(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [without_places(entry) for entry in value]
    if not isinstance(value, str):
        return value
    if PurePath(value).is_absolute() or value.startswith("~"):
        return PurePath(value).name
    return _PATH_IN_TEXT.sub(r"\1", value)


def command_of(config: Mapping[str, Any], verb: str) -> str:
    """The command that makes a run again: its recipe, its seed, and every setting that differs from the recipe's.

    Args:
        config: the run's settings as nested plain data.
        verb: what the run did.

    Raises:
        ConfigError: the recipe is not known any more.
    """
    recipe, ours = config.get("recipe", ""), flatten(config)
    base = _recipe(recipe)
    places = () if ours.get("run.checkpoint") == SCRATCH else ("run.checkpoint",)
    changed = [
        f"{key}={_hydra(mine)}"
        for key, _, mine in differences(base, ours, (*MACHINE_SETTINGS, *UNREAD[verb], *places))
        if key in ours and (key in base or is_open(key))
    ]
    first = [f"recipe={recipe}"] if recipe else []
    words = [*first, f"seed={config['seed']}", *_start(config, verb), *changed, *_folder(config)]
    return " ".join(["robo-rlft", verb, *map(shlex.quote, words)])


_PATH_IN_TEXT = re.compile(r"(?<![\w.:/~])/(?:[^/\s]+/)+([^/\s]+)")


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.record", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="folder of a finished run or demo")
    parser.add_argument("--bench", type=Path, metavar="FILE", help="rows that robo-rlft bench wrote with --json")
    parser.add_argument("--name", required=True, help="how the record is called; runs of one task share a name")
    given = parser.parse_args(argv)
    if bool(given.runs) == bool(given.bench):
        parser.error("give folders of runs, or --bench FILE")
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", given.name) or (given.runs and given.name == BENCH):
        parser.error(f"--name {given.name}: use small letters, digits, - and _, and not '{BENCH}' for runs")
    return given


def _keep(given: argparse.Namespace, records: Path) -> list[Path]:
    if given.bench:
        return [record_bench(given.bench, records / BENCH / f"{given.name}.json")]
    demos = [folder for folder in given.runs if (folder / SUMMARY).is_file()]
    runs = [folder for folder in given.runs if folder not in demos]
    target = records / given.name
    return [path for demo in demos for path in record_demo(demo, target)] + record_runs(runs, target)


def _check_finished(run: Path) -> None:
    read_config(run)
    if not (run / "finished.json").is_file():
        raise RunError(f"{run} has not reached its end: give its command again, it continues, and record it then")
    found = _evaluations(run)
    if not found:
        raise RunError(f"{run} has no evaluation of its own: run robo-rlft evaluate {run}")
    steps = _read(run / "finished.json").get("env_steps")
    for evaluation in found:
        if steps is not None and evaluation.get("env_steps", steps) != steps:
            raise RunError(
                f"evaluation '{evaluation['name']}' in {run} is of {evaluation['env_steps']} environment steps and the "
                f"run ended at {steps}: run robo-rlft evaluate {run}"
            )


def _record_run(run: Path, target: Path) -> Path:
    if target.exists():
        shutil.rmtree(target)
    config, versions = read_config(run), _read(run / "versions.json")
    _write(target / "config.yaml", yaml.safe_dump(without_places(_with_run(config)), sort_keys=False))
    _write_json(target / "versions.json", versions)
    _write_json(target / "finished.json", _read(run / "finished.json"))
    _write(target / METRICS, to_csv(read(run)))
    _write(target / COMMAND, command_of(config, versions["verb"]) + "\n")
    _copy_evaluations(run, target)
    for file in sorted((run / SWEEPS).glob("*.json")):
        _write_json(target / SWEEPS / file.name, _read(file))
    return target


def _copy_evaluations(run: Path, target: Path) -> None:
    for evaluation in _evaluations(run):
        _write_json(target / "evaluation" / f"{evaluation['name']}.json", evaluation)


def _evaluations(run: Path) -> list[dict[str, Any]]:
    files = sorted((run / "evaluation").glob("*.json"))
    return [_read(file) for file in files if not file.name.startswith(IN_TRAINING)]


@cache
def _recipe(name: str) -> dict[str, Any]:
    """A recipe's settings by dotted key."""
    return flatten(plain(compose([f"recipe={name}"] if name else [])))


def _start(config: Mapping[str, Any], verb: str) -> list[str]:
    """The checkpoint a run began with, where it is not the one its recipe finds by itself, as its recipe calls it."""
    given = config.get("run", {}).get("checkpoint", "")
    source = run_folder(Path(given))
    if not given or not (source / "config.yaml").is_file():
        return []
    theirs = read_config(source)
    made_by = _read(source / "versions.json")["verb"]
    found = (verb, made_by) == ("finetune", "pretrain") and all(theirs[k] == config[k] for k in ("recipe", "seed"))
    return [] if found else [f"run.checkpoint={RUNS / theirs['recipe']}/{made_by}-seed{theirs['seed']}"]


def _folder(config: Mapping[str, Any]) -> list[str]:
    """The run's folder, where it is one of those that everybody has and not the one its recipe gives."""
    given = config.get("run", {}).get("dir", "")
    return [f"run.dir={given}"] if given and PurePath(given).parts[0] == str(RUNS) else []


def _with_run(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with the run that a checkpoint belongs to in place of the checkpoint."""
    where = config.get("run", {})
    source = where.get("checkpoint", "")
    return {**config, "run": {**where, "checkpoint": str(run_folder(Path(source))) if source else ""}}


def _hydra(value: Any) -> str:
    """A value in Hydra's grammar."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, list):
        return f"[{','.join(map(_hydra, value))}]"
    return str(value) if value != "" else "''"


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except FileNotFoundError as error:
        raise RunError(f"{file} does not exist: give what robo-rlft wrote") from error
    except ValueError as error:
        raise RunError(f"{file} is damaged: make it again") from error


def _write_json(path: Path, value: Mapping[str, Any]) -> Path:
    return _write(path, _compact(without_places(value)) + "\n")


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def _compact(value: Mapping[str, Any]) -> str:
    """JSON with one line per entry, and one per row of a table in it."""
    return "{\n" + ",\n".join(f" {json.dumps(key)}: {_entry(entry)}" for key, entry in value.items()) + "\n}"


def _entry(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        return "[\n" + ",\n".join(f"  {json.dumps(row)}" for row in value) + "\n ]"
    return json.dumps(value)


if __name__ == "__main__":
    sys.exit(main())
