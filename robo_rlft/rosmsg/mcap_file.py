"""Messages in an MCAP file as `ros2 bag record -s mcap` writes them: profile `ros2`, CDR, definitions inside."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from robo_rlft.errors import DataError, MissingExtraError
from robo_rlft.rosmsg.bags import Recorded
from robo_rlft.rosmsg.cdr import decode, encode
from robo_rlft.rosmsg.definition import Definitions, bag_text, parse
from robo_rlft.rosmsg.known import KNOWN

try:
    from mcap.exceptions import McapError
    from mcap.reader import make_reader
    from mcap.well_known import MessageEncoding, Profile, SchemaEncoding
    from mcap.writer import Writer
except ImportError as error:
    raise MissingExtraError("mcap", "ros", "recording and reading MCAP files") from error


class Recorder:
    """Writes messages as they come. A context manager; the file is complete when it is closed.

    Args:
        path: file to write; an older one is replaced.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._writer = Writer(self._file)
        self._writer.start(profile=Profile.ROS2, library="robo_rlft")
        self._channels: dict[str, int] = {}
        self._schemas: dict[str, int] = {}

    def write(self, topic: str, kind: str, message: Any, time_ns: int) -> None:
        """Record one message of a type in `KNOWN` at a time in ns since 1970."""
        data = encode(kind, message, KNOWN)
        self._writer.add_message(self._channel(topic, kind), log_time=time_ns, publish_time=time_ns, data=data)

    def mark(self, name: str, time_ns: int, facts: dict[str, str]) -> None:
        """Write facts beside the messages, as MCAP's metadata."""
        self._writer.add_metadata(name, {"time_ns": str(time_ns), **facts})

    def close(self) -> None:
        """Complete the file."""
        self._writer.finish()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _channel(self, topic: str, kind: str) -> int:
        if topic not in self._channels:
            self._channels[topic] = self._writer.register_channel(topic, MessageEncoding.CDR, self._schema(kind))
        return self._channels[topic]

    def _schema(self, kind: str) -> int:
        if kind not in self._schemas:
            text = bag_text(kind, KNOWN).encode()
            self._schemas[kind] = self._writer.register_schema(kind, SchemaEncoding.ROS2, text)
        return self._schemas[kind]


def read_mcap(path: Path, topics: Collection[str] | None = None) -> Iterator[Recorded]:
    """Messages in the order of their times; those of other encodings than ROS 2's are left out.

    Args:
        path: file.
        topics: only these; None takes all.

    Raises:
        DataError: the file is damaged.
    """
    known: dict[str, Definitions] = {}
    try:
        with path.open("rb") as file:
            for schema, channel, found in make_reader(file).iter_messages(topics):
                if schema is None or schema.encoding != SchemaEncoding.ROS2:
                    continue
                if schema.name not in known:
                    known[schema.name] = parse(schema.name, schema.data.decode())
                message = decode(schema.name, found.data, known[schema.name])
                yield Recorded(channel.topic, schema.name, found.log_time, message)
    except (McapError, OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as MCAP ({error}): was the recording ended properly?") from error


def read_marks(path: Path, name: str) -> list[dict[str, str]]:
    """Facts written by `Recorder.mark`, in their order.

    Raises:
        DataError: the file is damaged.
    """
    try:
        with path.open("rb") as file:
            return [dict(m.metadata) for m in make_reader(file).iter_metadata() if m.name == name]
    except (McapError, OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as MCAP ({error}): was the recording ended properly?") from error
