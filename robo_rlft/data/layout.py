"""What lies where in a data set, and the header that says how much of it is committed.

A data set is a zarr v3 group in a folder. S steps in E episodes give:

    observation/<key>   [S + E, ...]   each episode holds one observation more than it has steps
    action              [S, A]         float32
    reward              [S]            float32, produced by the step
    terminated          [S]            bool, at an episode's last step only
    truncated           [S]            bool, likewise
    meta/episode_ends   [E]            int64, steps up to and including episode i
    meta/success        [E]            bool
    meta/seed           [E]            int64, -1 when unknown
    meta/task           [E]            int32, position in the table of instructions `tasks` of the header
    meta/digest         [E, 32]        uint8, SHA-256 of each episode's content

The group's attribute `robo_rlft` is the header. It is replaced last and in one step, so it is the commit marker: rows
beyond its counts are leftovers of a writer that was killed, ignored by readers and trimmed by the next writer.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from robo_rlft.data.durable import write_atomic
from robo_rlft.errors import DataError
from robo_rlft.spec import IMAGE_PREFIX, RobotSpec

VERSION = 1
HEADER_FILE = "zarr.json"
ATTRIBUTE = "robo_rlft"
CHUNK_BYTES = 1 << 20
SHARD_BYTES = 1 << 25
FRAMES_PER_SHARD = (256, 2000)
ALIGNMENTS = (1 << 21, 1 << 12)
"""The frames of a full shard end at a multiple of the first of these that their size allows (large page, page), so that
readers can map shards side by side."""

Axis = Literal["observation", "step", "episode"]


class DamagedError(DataError):
    """A data set whose files contradict its header.

    Attributes:
        path, key, expected, found: the parts of the message, for `robo-rlft doctor`.
    """

    def __init__(self, path: Path, key: str, expected: str, found: str) -> None:
        super().__init__(
            f"data set {path}, '{key}': expected {expected}, found {found}; restore it from a copy or record it again"
        )
        self.path, self.key, self.expected, self.found = path, key, expected, found


@dataclass(frozen=True)
class Column:
    """One array of the data set. `axis` says what its rows count."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    axis: Axis

    @property
    def is_image(self) -> bool:
        """Stored uncompressed, one frame per inner chunk, many to a file."""
        return self.name.startswith(f"observation/{IMAGE_PREFIX}")

    @property
    def row_bytes(self) -> int:
        """Size of one row in memory."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    @property
    def rows_per_file(self) -> int:
        """Rows in one chunk file (low-dimensional) or one shard (images)."""
        if self.is_image:
            frames = int(np.clip(SHARD_BYTES // self.row_bytes, *FRAMES_PER_SHARD))
            units = (size // math.gcd(self.row_bytes, size) for size in ALIGNMENTS)
            return frames - frames % next((unit for unit in units if unit <= frames), 1)
        return 1 << int(np.log2(np.clip(CHUNK_BYTES // self.row_bytes, 1, 1 << 16)))

    def file(self, number: int) -> str:
        """Path of one chunk file, relative to the data set."""
        return "/".join([self.name, "c", str(number), *("0" for _ in self.shape)])

    def num_files(self, rows: int) -> int:
        """Files that hold the first `rows` rows."""
        return -(-rows // self.rows_per_file)


@dataclass(frozen=True)
class Header:
    """What is committed. Written last, in one step.

    Attributes:
        robot: shapes, units and rate of the recorded robot.
        source: provenance: what made the data, with its settings; `resumed` lists later writers' own.
        num_episodes: committed episodes, E.
        num_steps: committed control steps, S.
        tasks: instructions in words; `meta/task` holds positions in this table.
        content_hash: SHA-256 over the spec and every episode's digest, as hexadecimal.
    """

    robot: RobotSpec
    source: Mapping[str, Any]
    num_episodes: int = 0
    num_steps: int = 0
    tasks: tuple[str, ...] = field(default=())
    content_hash: str = ""

    def rows(self, axis: Axis) -> int:
        """Committed rows of a column."""
        steps, episodes = self.num_steps, self.num_episodes
        return {"observation": steps + episodes, "step": steps, "episode": episodes}[axis]

    def write(self, path: Path) -> None:
        """Replace the header on disk: the moment at which everything counted in it becomes part of the data set."""
        values = {**vars(self), "robot": self.robot.to_dict(), "source": dict(self.source), "tasks": list(self.tasks)}
        group = {
            "zarr_format": 3,
            "node_type": "group",
            "attributes": {ATTRIBUTE: {"version": VERSION, **values}},
        }
        write_atomic(path / HEADER_FILE, json.dumps(group, indent=2).encode())

    @classmethod
    def read(cls, path: Path) -> Header:
        """Read the header.

        Raises:
            DataError: the folder does not exist, is not a data set, or was written by a later version.
        """
        values = _header_attribute(path)
        version = values.get("version")
        if version != VERSION:
            raise DataError(f"data set {path} has format version {version}, this robo_rlft reads {VERSION}: update it")
        try:
            return cls(
                robot=RobotSpec.from_dict(values["robot"]),
                source=values["source"],
                num_episodes=int(values["num_episodes"]),
                num_steps=int(values["num_steps"]),
                tasks=tuple(values["tasks"]),
                content_hash=values["content_hash"],
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DamagedError(path, HEADER_FILE, "a complete header", f"{type(error).__name__}: {error}") from error


def columns_of(robot: RobotSpec) -> dict[str, Column]:
    """Every array of a data set recorded on this robot, by name."""
    observed = [Column(f"observation/{k}", s.shape, s.dtype, "observation") for k, s in robot.observation.items()]
    columns = [
        *observed,
        Column("action", robot.action.shape, "float32", "step"),
        Column("reward", (), "float32", "step"),
        Column("terminated", (), "bool", "step"),
        Column("truncated", (), "bool", "step"),
        Column("meta/episode_ends", (), "int64", "episode"),
        Column("meta/success", (), "bool", "episode"),
        Column("meta/seed", (), "int64", "episode"),
        Column("meta/task", (), "int32", "episode"),
        Column("meta/digest", (32,), "uint8", "episode"),
    ]
    return {column.name: column for column in columns}


def content_hash(robot: RobotSpec, digests: bytes) -> str:
    """The data set's hash from its spec and its episodes' digests, in order."""
    as_read = RobotSpec.from_dict(json.loads(json.dumps(robot.to_dict())))  # 20 and 20.0 Hz are the same robot
    spec = json.dumps(as_read.to_dict(), sort_keys=True).encode()
    return hashlib.sha256(spec + digests).hexdigest()


def _header_attribute(path: Path) -> Mapping[str, Any]:
    if not path.is_dir():
        raise DataError(f"there is no data set at {path}: give the folder that `robo-rlft collect` or `convert` wrote")
    try:
        group = json.loads((path / HEADER_FILE).read_text())
        attributes = group["attributes"]
        found = attributes[ATTRIBUTE]
    except FileNotFoundError:
        raise DataError(_not_ours(path, f"no {HEADER_FILE}")) from None
    except (KeyError, TypeError):
        raise DataError(_not_ours(path, "a zarr group without the attribute 'robo_rlft'")) from None
    except ValueError as error:
        raise DamagedError(path, HEADER_FILE, "JSON", f"{error}") from error
    if not isinstance(found, Mapping):
        raise DamagedError(path, HEADER_FILE, "a header", type(found).__name__)
    return found


def _not_ours(path: Path, found: str) -> str:
    return f"{path} is not a robo_rlft data set ({found}); bring foreign data in with `robo-rlft convert`"
