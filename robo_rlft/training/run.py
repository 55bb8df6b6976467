"""A run is a folder. This opens it: settings, versions, lock, log, and the rule for continuing an old one.

runs/NAME/
  config.yaml      the resolved settings          versions.json  packages, machine and git state
  metrics.jsonl    one row per line               tensorboard/   the same for TensorBoard
  checkpoints/     last and best                  evaluation/    one JSON file per evaluation
  videos/          mp4 files                      report.html    all of it on one page
  log.txt          what was said                  finished.json  written when the run has reached its end
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from robo_rlft.errors import RunError
from robo_rlft.training.checkpoint import CheckpointStore
from robo_rlft.training.compare import Difference, differences, flatten, plain
from robo_rlft.training.files import TEMPORARY, atomic_write, make_folder, writing
from robo_rlft.training.metrics import Metrics
from robo_rlft.training.progress import console
from robo_rlft.training.versions import environment

MAY_CHANGE = (
    "run.dir",
    "run.save_every",
    "run.eval_every",
    "run.eval_episodes",
    "run.tensorboard",
    "run.wandb",
    "run.max_steps",
    "run.wall_seconds",
    "run.stop_return",
    "evaluate",
    "export",
    "ppo.iterations",
    "bc.steps",
    "critic.rounds",
    "bc.wall_seconds",
    "env.threads",
    "threads",
    "device",
)
"""Settings (dotted keys or their prefixes) a run may be continued with in another value: limits, logging, machine."""


@dataclass
class Run:
    """An open run folder; hold it, as a context manager, for as long as the run writes. Made by `Run.open`.

    Attributes:
        path: the folder.
        config: its settings as plain containers.
        resumed: the folder held this run already.
        metrics: where figures go.
        checkpoints: where weights and state go.
    """

    path: Path
    config: dict[str, Any]
    resumed: bool
    metrics: Metrics
    checkpoints: CheckpointStore
    _lock: RunLock

    @classmethod
    def open(cls, path: Path | str, config: Any, *, verb: str) -> Run:
        """Open a run folder for writing: a new one, or the same run to continue it.

        Args:
            path: the folder; made if it does not exist.
            config: the resolved settings, a dataclass or nested mapping of plain data. `run.tensorboard` and
                `run.wandb` decide where metrics go beside the plain file.
            verb: what the run does (`pretrain`, `finetune`).

        Raises:
            RunError: another process writes to it, it belongs to another configuration, or it cannot be written.
            MissingExtraError: `run.wandb` is set and not installed.
        """
        folder, settings = make_folder(Path(path)), plain(config)
        lock = RunLock(folder)
        try:
            resumed = (folder / _CONFIG).exists()
            changed = _check_same_run(folder, settings, _defaults(config), verb) if resumed else []
            _note_changes(folder, changed)
            _write_settings(folder, settings, verb)
            where = settings.get("run", {})
            metrics = Metrics(folder, where.get("tensorboard", True), where.get("wandb", ""), settings)
        except BaseException:
            lock.release()
            raise
        return cls(folder, settings, resumed, metrics, CheckpointStore(folder), lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.metrics.close()
        finally:
            self._lock.release()

    def begin(self, resume: Callable[[], None]) -> None:
        """Go on from the last checkpoint by `resume`, or begin.

        A run that was killed before its first checkpoint begins again, and so do its figures.
        """
        if "last" in self.checkpoints.names:
            resume()
        else:
            self.metrics.truncate_after(-1)

    def log(self, message: str) -> None:
        """Print a line and keep it with its time in log.txt."""
        _log(self.path, message)

    @property
    def finished(self) -> bool:
        """The run has reached its end: there is nothing to continue, unless its limits are raised."""
        return (self.path / _FINISHED).exists()

    def finish(self, summary: Mapping[str, Any] | None = None) -> None:
        """Mark the run as having reached its end.

        Args:
            summary: plain data to keep with the mark.
        """
        atomic_write(self.path / _FINISHED, _json({"finished": _timestamp(), **(summary or {})}))


class RunLock:
    """An exclusive lock on a folder that dies with its process, however it dies.

    Args:
        path: the folder.

    Raises:
        RunError: another process holds it.
    """

    def __init__(self, path: Path) -> None:
        self._file = _open_lock(path / "lock")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._file, 200, 0).decode(errors="replace").strip() or "another process"
            os.close(self._file)
            raise RunError(
                f"{path} is being written by {holder}: wait for it, stop it, or choose another folder with run.dir=PATH"
            ) from error
        _held.add(self._file)
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)

    def release(self) -> None:
        """Let others open the folder; harmless when called twice."""
        if self._file in _held:
            _held.discard(self._file)
            os.close(self._file)


def read_config(path: Path) -> dict[str, Any]:
    """The settings of a run.

    Raises:
        RunError: the folder is no run, or its config.yaml is damaged.
    """
    file = path / _CONFIG
    if not file.is_file():
        raise RunError(f"{path} is not a run folder: it has no {_CONFIG}")
    try:
        value = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RunError(f"{file} is not readable YAML: restore it or start a new run") from error
    if not isinstance(value, dict):
        raise RunError(f"{file} holds no settings: restore it or start a new run")
    return value


_CONFIG, _FINISHED = "config.yaml", "finished.json"
_held: set[int] = set()


def _close_in_child() -> None:
    """A forked worker that outlives its killed parent must not keep the parent's lock."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)


def _open_lock(path: Path) -> int:
    with writing(path):
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _defaults(config: Any) -> dict[str, Any]:
    """What the settings of a dataclass are if nobody sets them."""
    return flatten(plain(type(config)())) if is_dataclass(config) else {}


def _check_same_run(path: Path, config: Mapping[str, Any], defaults: Mapping[str, Any], verb: str) -> list[Difference]:
    """Changed settings that may change; raises RunError at the first that may not.

    A setting that did not exist when the run was started had its default: a newer version goes on with older runs.
    """
    old, new = flatten(read_config(path)), flatten(config)
    old = {**{key: value for key, value in defaults.items() if key in new}, **old}
    if (before := _verb(path)) != verb:
        raise RunError(f"{path} holds a {before} run, this is {verb}: choose another folder with run.dir=PATH")
    for key, left, right in differences(old, new, MAY_CHANGE):
        raise RunError(
            f"{path} was started with {key}={left}, now {key}={right}: use the same settings to continue it, "
            f"or choose another folder with run.dir=PATH"
        )
    return list(differences(old, new))


def _verb(path: Path) -> str:
    try:
        return json.loads((path / "versions.json").read_bytes())["verb"]
    except (OSError, ValueError, KeyError) as error:
        raise RunError(
            f"{path / 'versions.json'} is missing or damaged: choose another folder with run.dir=PATH"
        ) from error


def _write_settings(path: Path, settings: Mapping[str, Any], verb: str) -> None:
    for leftover in path.glob(f"{TEMPORARY}*"):
        leftover.unlink()
    # The settings come last: they are what makes the folder a run that can be continued.
    atomic_write(path / "versions.json", _json({"verb": verb, "opened": _timestamp(), **environment()}))
    atomic_write(path / _CONFIG, yaml.safe_dump(dict(settings), sort_keys=False).encode())


def _note_changes(path: Path, changed: list[Difference]) -> None:
    """Say which limits changed; a finished run whose limits changed is open again."""
    if changed:
        _log(path, "continuing with " + ", ".join(f"{key}={new} (was {old})" for key, old, new in changed))
        (path / _FINISHED).unlink(missing_ok=True)


def _log(path: Path, message: str) -> None:
    console.print(message, soft_wrap=True, markup=False)
    with writing(path / "log.txt"), (path / "log.txt").open("a", encoding="utf-8") as file:
        file.write(f"{_timestamp()}  {message}\n")


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=1).encode()


def _timestamp() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")
