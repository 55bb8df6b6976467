"""Write and read demonstrations: one zarr v3 folder per data set. See `layout` for what lies where."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from jaxtyping import Bool, Float32, Int64, Shaped

from robo_rlft.data.arrays import ColumnWriter, check_metadata, read_array, write_groups
from robo_rlft.data.durable import TEMPORARY, clear_folder, make_folder, only_writer, remove_leftovers
from robo_rlft.data.episode import NO_SEED, Episode, checked
from robo_rlft.data.layout import HEADER_FILE, Column, DamagedError, Header, columns_of, content_hash
from robo_rlft.data.shards import Frames
from robo_rlft.errors import DataError
from robo_rlft.spec import RobotSpec

EPISODES_PER_COMMIT = 16


class DatasetWriter:
    """Appends episodes to a data set. Use it as a context manager; leaving it commits.

    Whatever kills the process, the data set holds a whole number of episodes: those of the last commit.

    Args:
        path: folder of the data set.
        robot: what every episode must fit.
        source: provenance, JSON values: what made the data, with its settings.
        resume: go on with a data set that exists (or start one).
        overwrite: delete a data set that exists. Other folders are never deleted.
        commit_every: episodes between two commits made by `append`.

    Raises:
        DataError: the folder is in use, holds something else, or holds a data set and neither `resume` nor `overwrite`
            was given; when resuming, the spec differs from the stored one.
    """

    def __init__(
        self,
        path: str | Path,
        robot: RobotSpec,
        source: Mapping[str, Any],
        *,
        resume: bool = False,
        overwrite: bool = False,
        commit_every: int = EPISODES_PER_COMMIT,
    ) -> None:
        self.path = Path(path)
        self._commit_every = commit_every
        self._broken = False
        self._lock = contextlib.ExitStack()
        make_folder(self.path)
        self._lock.enter_context(only_writer(self.path))
        try:
            self._start(robot, source, resume, overwrite)
        except BaseException:
            self._lock.close()
            raise

    @property
    def num_episodes(self) -> int:
        """Episodes appended so far, committed or not."""
        return self._header.num_episodes

    def append(self, episode: Episode) -> None:
        """Add one episode.

        Raises:
            DataError: it does not fit the spec or holds NaN; nothing of it is kept. Or the disk is full.
        """
        ready = checked(episode, self._header.robot, f"episode {self.num_episodes} for {self.path}")
        digest = ready.digest()
        with self._broken_on_error():
            for name, rows in {**ready.columns(), **self._episode_row(ready, digest)}.items():
                self._columns[name].append(rows)
            self._digests.extend(digest)
            self._header = self._counted(ready.num_steps)
        if self.num_episodes % self._commit_every == 0:
            self.commit()

    def commit(self) -> None:
        """Make every appended episode part of the data set; when this returns, it is on the disk."""
        with self._broken_on_error():
            for column in self._columns.values():
                column.flush()
            self._header = replace(self._header, content_hash=content_hash(self._header.robot, bytes(self._digests)))
            self._header.write(self.path)

    def close(self) -> None:
        """Commit and let other writers in. A writer that failed only lets others in."""
        try:
            if not self._broken:
                self.commit()
        finally:
            self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, robot: RobotSpec, source: Mapping[str, Any], resume: bool, overwrite: bool) -> None:
        exists = (self.path / HEADER_FILE).exists()
        self._check_folder(exists, resume, overwrite)
        if exists and not overwrite:
            self._header = _resumed(self.path, robot, source)
        else:
            self._header = Header(robot, dict(source), content_hash=content_hash(robot, b""))
            self._header.write(self.path)
            clear_folder(self.path, keep=HEADER_FILE)
        remove_leftovers(self.path)
        columns = columns_of(robot)
        write_groups(self.path, columns)
        self._digests = bytearray(_stored_digests(self.path, self._header))
        self._columns = {n: ColumnWriter(self.path, c, self._header.rows(c.axis)) for n, c in columns.items()}
        self._tasks = {task: number for number, task in enumerate(self._header.tasks)}

    def _check_folder(self, exists: bool, resume: bool, overwrite: bool) -> None:
        if exists and not (resume or overwrite):
            raise DataError(f"{self.path} holds a data set: go on with resume=true, replace it with overwrite=true")
        if exists:
            Header.read(self.path)
        elif any(not p.name.endswith(TEMPORARY) for p in self.path.iterdir()):
            raise DataError(f"{self.path} is not empty and not a data set: give an empty or a new folder")

    def _counted(self, steps: int) -> Header:
        header = self._header
        counts = {"num_episodes": header.num_episodes + 1, "num_steps": header.num_steps + steps}
        return replace(header, **counts, tasks=tuple(self._tasks))

    def _episode_row(self, episode: Episode, digest: bytes) -> dict[str, np.ndarray]:
        task = self._tasks.setdefault(episode.task, len(self._tasks))
        return {
            "meta/episode_ends": np.array([self._header.num_steps + episode.num_steps], np.int64),
            "meta/success": np.array([episode.success], bool),
            "meta/seed": np.array([NO_SEED if episode.seed is None else episode.seed], np.int64),
            "meta/task": np.array([task], np.int32),
            "meta/digest": np.frombuffer(digest, np.uint8)[None],
        }

    @contextlib.contextmanager
    def _broken_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._broken = True  # arrays may have unequal lengths now: nothing may be committed any more
            raise


@dataclass(frozen=True)
class Dataset:
    """A committed data set. Low-dimensional arrays are in memory, images are mapped from disk.

    Attributes:
        path: its folder.
        header: what is committed.
        arrays: every low-dimensional array by its name in the layout.
        images: frames by observation key.
    """

    path: Path
    header: Header
    arrays: Mapping[str, Shaped[np.ndarray, "rows ..."]] = field(repr=False)
    images: Mapping[str, Frames] = field(repr=False)

    @classmethod
    def open(cls, path: str | Path) -> Dataset:
        """Read a data set and check what can be checked without reading every image.

        Raises:
            DataError: naming the path, the array, what was expected and what was found.
        """
        folder = Path(path)
        header = Header.read(folder)
        columns = columns_of(header.robot)
        arrays = {n: read_column(folder, c, header) for n, c in columns.items() if not c.is_image}
        check_episode_ends(folder, header, arrays["meta/episode_ends"])
        images = {observation_key(n): read_frames(folder, c, header) for n, c in columns.items() if c.is_image}
        return cls(folder, header, arrays, images)

    @property
    def robot(self) -> RobotSpec:
        """What was recorded: shapes, units, rate."""
        return self.header.robot

    @property
    def source(self) -> Mapping[str, Any]:
        """Provenance."""
        return self.header.source

    @property
    def num_episodes(self) -> int:
        """Episodes, E."""
        return self.header.num_episodes

    @property
    def num_steps(self) -> int:
        """Control steps over all episodes, S."""
        return self.header.num_steps

    @property
    def content_hash(self) -> str:
        """SHA-256 of the content; the same for equal data however they are stored."""
        return self.header.content_hash

    @property
    def action(self) -> Float32[np.ndarray, "step action"]:
        """Every action."""
        return self.arrays["action"]

    @property
    def reward(self) -> Float32[np.ndarray, " step"]:
        """Reward produced by each step."""
        return self.arrays["reward"]

    @property
    def terminated(self) -> Bool[np.ndarray, " step"]:
        """The step ended the task by its own rule."""
        return self.arrays["terminated"]

    @property
    def truncated(self) -> Bool[np.ndarray, " step"]:
        """The recording stopped after the step for another reason."""
        return self.arrays["truncated"]

    @property
    def episode_ends(self) -> Int64[np.ndarray, " episode"]:
        """Steps up to and including each episode. Observations of episode i start at its first step + i."""
        return self.arrays["meta/episode_ends"]

    @property
    def episode_starts(self) -> Int64[np.ndarray, " episode"]:
        """First step of each episode."""
        return np.concatenate([np.zeros(1, np.int64), self.episode_ends[:-1]])[: self.num_episodes]

    @property
    def success(self) -> Bool[np.ndarray, " episode"]:
        """The task was done, per episode."""
        return self.arrays["meta/success"]

    def observation(self, key: str) -> Shaped[np.ndarray, "step_and_last ..."]:
        """One observation key, [S + E, ...]: every episode's T + 1 observations, one episode after the other.

        Images are read into memory here; `images[key].gather` reads only those that are needed.

        Raises:
            DataError: there is no such key.
        """
        if key not in self.robot.observation:
            raise DataError(f"data set {self.path} has no observation '{key}': it has {sorted(self.robot.observation)}")
        return self.images[key][:] if key in self.images else self.arrays[f"observation/{key}"]

    def episode(self, index: int) -> Episode:
        """A copy of one episode."""
        if not 0 <= index < self.num_episodes:
            raise DataError(f"data set {self.path} has {self.num_episodes} episodes, number {index} was asked for")
        start, end = int(self.episode_starts[index]), int(self.episode_ends[index])
        rows = slice(start + index, end + index + 1)
        seed = int(self.arrays["meta/seed"][index])
        stored = {k: self.images.get(k, self.arrays.get(f"observation/{k}")) for k in self.robot.observation}
        return Episode(
            observation={k: np.array(v[rows]) for k, v in stored.items() if v is not None},
            action=self.action[start:end].copy(),
            reward=self.reward[start:end].copy(),
            terminated=bool(self.terminated[end - 1]),
            truncated=bool(self.truncated[end - 1]),
            success=bool(self.success[index]),
            task=self.header.tasks[self.arrays["meta/task"][index]],
            seed=None if seed == NO_SEED else seed,
        )


def read_column(path: Path, column: Column, header: Header) -> np.ndarray:
    """One low-dimensional array, committed rows only.

    Raises:
        DamagedError: it is missing, incomplete, altered, or holds NaN.
    """
    rows = header.rows(column.axis)
    values = read_array(path, column, rows) if rows else np.empty((0, *column.shape), column.dtype)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        row = int(np.argmin(np.isfinite(values).reshape(rows, -1).all(1)))
        raise DamagedError(path, column.name, "finite numbers", f"{values[row].tolist()} in row {row}")
    return values


def read_frames(path: Path, column: Column, header: Header) -> Frames:
    """One camera's images, mapped.

    Raises:
        DamagedError: files are missing, cut off, or of another shape.
    """
    rows = header.rows(column.axis)
    if rows:
        check_metadata(path, column, rows)
    return Frames(path, column, rows)


def check_episode_ends(path: Path, header: Header, ends: Int64[np.ndarray, " episode"]) -> None:
    """Episode ends must grow and finish at the last step.

    Raises:
        DamagedError: they do not.
    """
    if (np.diff(ends, prepend=0) <= 0).any():
        raise DamagedError(path, "meta/episode_ends", "growing numbers", f"{ends.tolist()[:8]} ...")
    if len(ends) and ends[-1] != header.num_steps:
        raise DamagedError(path, "meta/episode_ends", f"{header.num_steps} at the end", str(ends[-1]))


def observation_key(column: str) -> str:
    """The observation key of an array's name in the layout."""
    return column.removeprefix("observation/")


def _resumed(path: Path, robot: RobotSpec, source: Mapping[str, Any]) -> Header:
    header = Header.read(path)
    if header.robot.to_dict() != robot.to_dict():
        header.robot.check(robot, f"data set {path}", "the new episodes' spec")
        robot.check(header.robot, "the new episodes' spec", f"data set {path}")
    earlier = {k: v for k, v in header.source.items() if k != "resumed"}
    resumed = list(header.source.get("resumed", []))
    if dict(source) not in [earlier, *resumed]:
        resumed.append(dict(source))
    return replace(header, source={**earlier, **({"resumed": resumed} if resumed else {})})


def _stored_digests(path: Path, header: Header) -> bytes:
    return read_column(path, columns_of(header.robot)["meta/digest"], header).tobytes()
