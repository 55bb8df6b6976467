"""Recordings of ROS 2: an MCAP file, an SQLite file, or the folder that `ros2 bag record` leaves."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import yaml

from robo_rlft.errors import DataError
from robo_rlft.rosmsg.cdr import Message, decode
from robo_rlft.rosmsg.definition import Definitions, parse
from robo_rlft.rosmsg.known import KNOWN

METADATA = "metadata.yaml"
_SUFFIXES = (".mcap", ".db3")


@dataclass(frozen=True)
class Recorded:
    """One recorded message.

    Attributes:
        topic: where it was.
        kind: full name of its type.
        time_ns: when it was recorded.
        message: itself.
    """

    topic: str
    kind: str
    time_ns: int
    message: Message


def is_bag(path: Path) -> bool:
    """Whether it looks like a recording."""
    return path.suffix in _SUFFIXES or (path / METADATA).is_file()


def bag_files(path: Path) -> list[Path]:
    """The files of a recording, in their order.

    Raises:
        DataError: the folder's description is damaged, or files are missing or compressed as a whole.
    """
    if path.is_file():
        return [path]
    try:
        names = yaml.safe_load((path / METADATA).read_text())["rosbag2_bagfile_information"]["relative_file_paths"]
        files = [path / name for name in names]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        said = f"{path / METADATA} does not list the recording's files ({error})"
        raise DataError(f"{said}: run ros2 bag reindex") from error
    for file in files:
        if not file.is_file():
            raise DataError(f"{file} is missing, which {METADATA} lists: copy the whole folder")
        if file.suffix not in _SUFFIXES:
            raise DataError(f"{file} is neither .mcap nor .db3: decompress it first (ros2 bag convert)")
    return files


def read_bag(path: Path, topics: Collection[str] | None = None) -> Iterator[Recorded]:
    """Messages of a recording in the order of their times.

    Args:
        path: file or folder.
        topics: only these; None takes all that can be read.

    Raises:
        DataError: it is damaged.
        MissingExtraError: it is an MCAP file, and mcap is not installed.
    """
    for file in bag_files(path):
        yield from _read_mcap(file, topics) if file.suffix == ".mcap" else _read_sqlite(file, topics)


def _read_mcap(path: Path, topics: Collection[str] | None) -> Iterator[Recorded]:
    from robo_rlft.rosmsg.mcap_file import read_mcap  # of an extra, which SQLite does not need

    return read_mcap(path, topics)


def _read_sqlite(path: Path, topics: Collection[str] | None) -> Iterator[Recorded]:
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as store:
            known = _definitions(store)
            kinds = {i: (name, kind) for i, name, kind in store.execute("SELECT id, name, type FROM topics")}
            rows = store.execute("SELECT topic_id, timestamp, data FROM messages ORDER BY timestamp")
            for number, time_ns, data in rows:
                topic, kind = kinds[number]
                if kind in known and (topics is None or topic in topics):
                    yield Recorded(topic, kind, time_ns, decode(kind, data, known[kind]))
    except sqlite3.Error as error:
        raise DataError(f"{path} cannot be read as a recording ({error})") from error


def _definitions(store: sqlite3.Connection) -> dict[str, Definitions]:
    """Of the file where it has them (since Iron), of this package for the types it speaks."""
    known: dict[str, Definitions] = dict.fromkeys(KNOWN, KNOWN)
    if store.execute("SELECT 1 FROM sqlite_master WHERE name = 'message_definitions'").fetchone():
        columns = "topic_type, encoding, encoded_message_definition"
        for kind, encoding, text in store.execute(f"SELECT {columns} FROM message_definitions"):
            if encoding == "ros2msg":
                known[kind] = parse(kind, text)
    return known
