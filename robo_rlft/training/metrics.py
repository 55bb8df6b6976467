"""Metrics of a run: one plain file that anything can read, and TensorBoard or Weights & Biases beside it.

`metrics.jsonl` holds one JSON object per line: `step`, `wall` (seconds of work since the run began, over all its
processes) and any number of named figures. Not-a-number is `null`; infinities are the strings `inf` and `-inf`.
"""

from __future__ import annotations

import errno
import importlib.util
import json
import math
import os
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from robo_rlft.errors import MissingExtraError, RunError
from robo_rlft.training.files import atomic_write, make_folder, writing

FILE = "metrics.jsonl"
Columns = dict[str, Float[ndarray, " row"]]


class Metrics:
    """Appends rows to a run's metrics. Open once per process, as a context manager.

    A last line that a kill cut in half is removed when the file is opened.

    Args:
        path: the run folder.
        tensorboard: write TensorBoard events to `path/tensorboard`.
        wandb: Weights & Biases project; empty does not log there.
        config: settings shown by Weights & Biases.

    Raises:
        MissingExtraError: Weights & Biases is asked for and not installed.
        RunError: the disk is full, or the file holds something else than metrics.
    """

    def __init__(
        self, path: Path, tensorboard: bool = True, wandb: str = "", config: Mapping[str, Any] | None = None
    ) -> None:
        self.path = make_folder(Path(path)) / FILE
        _repair(self.path)
        self._last_step = max((row["step"] for row in _rows(self.path)), default=None)
        self._file = self._open()
        self._tensorboard = _TensorBoard(path / "tensorboard", self._next_step) if tensorboard else None
        self._wandb = _start_wandb(Path(path), wandb, config or {}) if wandb else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, step: int, values: Mapping[str, float], *, wall: float) -> None:
        """Append one row and hand it to the operating system, so that it survives a kill.

        Args:
            step: environment steps or optimiser steps; never less than that of the row before.
            values: figures by name, `group/name`.
            wall: seconds of work since the run began.

        Raises:
            RunError: the disk is full.
            ValueError: `step` is less than that of the row before (after a resume: call `truncate_after` first).
        """
        if self._last_step is not None and step < self._last_step:
            raise ValueError(f"metrics of step {step} after those of step {self._last_step}")
        row = {"step": step, "wall": wall} | {name: _plain(value) for name, value in values.items()}
        with writing(self.path):
            self._append(json.dumps(row).encode() + b"\n")
            if self._tensorboard:
                self._tensorboard.write(step, values)
        if self._wandb:
            self._wandb.log({"step": step, "wall": wall, **values})
        self._last_step = step

    def truncate_after(self, step: int) -> None:
        """Forget the rows after `step`: a resumed run writes them again.

        Raises:
            RunError: the disk is full; the file is as it was.
        """
        lines = self.path.read_bytes().splitlines(keepends=True)
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        if len(kept) < len(lines):
            self._file.close()
            atomic_write(self.path, b"".join(kept))
            self._file = self._open()
        self._last_step = json.loads(kept[-1])["step"] if kept else None
        if self._tensorboard:
            self._tensorboard.forget_from(step + 1)

    def sync(self) -> None:
        """Wait until the rows are on the disk, so that they survive a power cut."""
        with writing(self.path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Write everything out and let go of the files."""
        with writing(self.path):
            self._file.close()
            if self._tensorboard:
                self._tensorboard.close()
        if self._wandb:
            self._wandb.finish()

    @property
    def _next_step(self) -> int:
        return 0 if self._last_step is None else self._last_step + 1

    def _open(self) -> FileIO:
        # Without a buffer, so that a row is either written or refused now, not when the file is closed.
        with writing(self.path):
            return self.path.open("ab", buffering=0)

    def _append(self, line: bytes) -> None:
        if self._file.write(line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def read(path: Path) -> Columns:
    """Columns of a run's metrics, one entry per row; NaN where a row does not have the figure.

    Args:
        path: the run folder or its metrics file. A half-written last line is left out.

    Raises:
        RunError: there are no metrics, or a line in the middle is damaged.
    """
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise RunError(f"no metrics at {file}: give the folder of a run")
    rows = list(_rows(file))
    names = dict.fromkeys(["step", "wall"]) | dict.fromkeys(name for row in rows for name in row)
    return {name: np.array([float(row.get(name, math.nan)) for row in rows], np.float64) for name in names}


class _TensorBoard:
    """One event per row, written at once: no thread that could lose the last rows or die of a full disk unseen.

    A session that starts at a later step hides what a killed one had written beyond it.
    """

    def __init__(self, path: Path, first_step: int) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._events, self._summaries = event_pb2, summary_pb2
        name = f"events.out.tfevents.{time.time_ns():019d}.{socket.gethostname()}.{os.getpid()}"
        with writing(path):
            self._file = (make_folder(path) / name).open("wb", buffering=0)
            self._records = RecordWriter(self._file)
            self._add(0, file_version="brain.Event:2")
            if first_step:
                self.forget_from(first_step)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        entries = [self._summaries.Summary.Value(tag=k, simple_value=float(v)) for k, v in values.items()]
        self._add(step, summary=self._summaries.Summary(value=entries))

    def forget_from(self, step: int) -> None:
        self._add(step, session_log=self._events.SessionLog(status=self._events.SessionLog.START))

    def close(self) -> None:
        self._file.close()

    def _add(self, step: int, **content: Any) -> None:
        self._records.write(self._events.Event(wall_time=time.time(), step=step, **content).SerializeToString())


def _start_wandb(path: Path, project: str, config: Mapping[str, Any]) -> Any:
    if importlib.util.find_spec("wandb") is None:
        raise MissingExtraError("wandb", "wandb", f"logging to Weights & Biases (run.wandb={project})")
    import wandb  # pyright: ignore[reportMissingImports]

    identity = path / "wandb_id"
    if not identity.exists():
        atomic_write(identity, uuid.uuid4().hex.encode())
    run = wandb.init(
        project=project,
        id=identity.read_text(),
        resume="allow",
        name=path.name,
        dir=str(path),
        config=dict(config),
    )
    run.define_metric("*", step_metric="step")
    return run


def _plain(value: float) -> float | str | None:
    number = float(value)
    if math.isnan(number):
        return None
    return number if math.isfinite(number) else str(number)


def _repair(path: Path) -> None:
    """Cut a last line that has no end: its writer was killed, or the disk was full."""
    if not path.exists():
        return
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        atomic_write(path, whole)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    data = path.read_bytes()
    for number, line in enumerate(data[: data.rfind(b"\n") + 1].splitlines(), 1):
        try:
            row = json.loads(line)
            yield {name: math.nan if value is None else value for name, value in row.items()} | {"step": row["step"]}
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise RunError(f"line {number} of {path} is not a row of metrics: remove the line or the file") from error
