"""Recordings of ROS 2 (MCAP, SQLite, rosbag2 folders): topics become observations, commands become actions.

One step is one message on the topic of the actions; what was observed is the newest message of every other topic that
is not younger. Where the actions carry the stamp of the observation they answer, stamps decide, so that latency on the
way does not shift the two; else the times of the recording do. Entries are matched by name where messages have names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from robo_rlft.data.converters.foreign import Foreign, image_spec
from robo_rlft.data.converters.foreign import Recorded as Steps
from robo_rlft.errors import ConfigError, DataError, SpecError, unknown_name
from robo_rlft.rosmsg.bags import Recorded, bag_files, is_bag, read_bag
from robo_rlft.rosmsg.cdr import Message
from robo_rlft.rosmsg.known import BOOL, FLOAT32_ARRAY, FLOAT64_ARRAY, JOINT_STATE, TRAJECTORY
from robo_rlft.rosmsg.labels import NS, array_entries, array_stamp, named, ordered, stamp_of
from robo_rlft.spec import ArraySpec

NAME = "rosbag"
OUTCOME = "robo_rlft.episode"
"""MCAP metadata that tells how an episode ended: `time_ns` within it, `success`."""
_ACTIONS = ("/policy/action", "/commands", "/joint_trajectory")
"""Ends of topics that are taken for the actions, the likeliest first."""
_RESET = "/policy/reset"
_ARRAYS = (FLOAT64_ARRAY, FLOAT32_ARRAY)
_PICTURES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
_LONGEST_GAP = 20.0
"""Periods without an action after which another episode begins."""
_COLOURS = {"rgb8": None, "bgr8": cv2.COLOR_BGR2RGB, "mono8": cv2.COLOR_GRAY2RGB}


@dataclass
class _Topic:
    """Numbers of one topic over time; pictures stay in the file.

    Attributes:
        kind: type of its messages.
        names: of the entries, in the order of the first message.
        times: of each message, ns.
        rows: its numbers; of a topic of pictures none.
        shape: of its pictures.
    """

    kind: str
    names: tuple[str, ...] = ()
    times: list[int] = field(default_factory=list)
    rows: list[np.ndarray] = field(default_factory=list)
    shape: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class _Episode:
    """Steps `first` to `last` (excluded) of the actions."""

    first: int
    last: int
    success: bool | None


def matches(path: Path) -> bool:
    """It looks like a recording."""
    return is_bag(path)


def open_source(path: Path, action_key: str | None = None) -> Foreign:
    """Open a recording.

    Args:
        path: file or folder.
        action_key: topic of the actions; by default one that is named like commands.

    Raises:
        DataError: it is damaged, or holds no actions.
        ConfigError: there is no such topic.
        MissingExtraError: mcap is not installed.
    """
    topics, resets = _scan(path)
    chosen = _action_topic(path, topics, action_key)
    action = topics[chosen]
    stamps = np.array(action.times)
    others = {name: topic for name, topic in topics.items() if name != chosen and (topic.names or topic.shape)}
    episodes = _episodes(path, stamps, resets)
    cameras = {name: image_spec(topic.shape) for name, topic in others.items() if topic.shape}
    period = float(np.median(np.diff(stamps))) if len(stamps) > 1 else NS / 10.0

    def read(keys: Sequence[str]) -> Iterator[Steps]:
        wanted = {key: others[key] for key in keys}
        for episode in episodes:
            yield _steps(path, action, wanted, stamps[episode.first : episode.last], episode)

    return Foreign(
        format=NAME,
        numbers={
            name: ArraySpec((len(topic.names),), names=topic.names) for name, topic in others.items() if topic.names
        },
        images={name: spec for name, spec in cameras.items() if spec is not None},
        action=ArraySpec((len(action.names),), names=action.names),
        rate_hz=round(NS / period, 3),
        lengths=[episode.last - episode.first for episode in episodes],
        has_reward=False,
        has_success=all(episode.success is not None for episode in episodes),
        episodes=read,
        notes=[f"actions are the messages on {chosen}", f"episodes were told apart by {_how(resets)}"],
    )


def _scan(path: Path) -> tuple[dict[str, _Topic], list[int]]:
    """All topics with numbers or pictures, and the times of the resets."""
    topics: dict[str, _Topic] = {}
    resets: list[int] = []
    for found in read_bag(path):
        if found.topic.endswith(_RESET) and found.kind == BOOL:
            resets.append(found.time_ns)
        else:
            _add(topics.setdefault(found.topic, _Topic(found.kind)), found)
    return {name: topic for name, topic in topics.items() if topic.times}, resets


def _add(topic: _Topic, found: Recorded) -> None:
    if found.kind in _PICTURES:
        topic.shape = topic.shape or _picture(found).shape
        topic.times.append(_time(found))
        return
    entries = _numbers(found)
    if entries and not topic.names:
        topic.names = tuple(entries)
    if entries:
        try:
            topic.rows.append(ordered(entries, topic.names, found.topic).astype(np.float32))
        except SpecError as error:
            raise DataError(f"the recording changes its mind about {error}") from error
        topic.times.append(_time(found))


def _time(found: Recorded) -> int:
    """The stamp a message says, else the time of its recording."""
    if found.kind in _ARRAYS:
        return array_stamp(found.message) or found.time_ns
    header = getattr(found.message, "header", None)
    return (stamp_of(found.message) if header is not None else 0) or found.time_ns


def _numbers(found: Recorded) -> dict[str, float]:
    """The numbers of a message by name; empty if it holds none that can be told apart."""
    message = found.message
    try:
        if found.kind in _ARRAYS:
            return array_entries(message) if message.layout.dim else _counted("", message.data)
        if found.kind == JOINT_STATE:
            parts = {"": message.position, ".velocity": message.velocity}
            values = {n: named(message.name, v, found.topic) for n, v in parts.items() if len(v)}
            return {joint + part: value for part, joints in values.items() for joint, value in joints.items()}
        if found.kind == TRAJECTORY:
            return named(message.joint_names, message.points[-1].positions, found.topic) if message.points else {}
    except SpecError as error:
        raise DataError(f"a message on {found.topic} cannot be read: {error}") from error
    return {name: value for name, value in _flat("", message) if not name.startswith("header.")}


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, float]]:
    """Single numbers within a message, by their path."""
    if isinstance(value, Message):
        for name, inner in vars(value).items():
            yield from _flat(f"{prefix}{name}.", inner)
    elif isinstance(value, int | float):
        yield prefix.rstrip("."), float(value)


def _counted(prefix: str, values: Sequence[float]) -> dict[str, float]:
    return {f"{prefix}{i}": float(value) for i, value in enumerate(values)}


def _action_topic(path: Path, topics: dict[str, _Topic], given: str | None) -> str:
    able = {name for name, topic in topics.items() if topic.names}
    if given is not None:
        if given not in able:
            raise ConfigError(f"action_key: {unknown_name('topic', given, able)}")
        return given
    for end in _ACTIONS:
        for name in sorted(able):
            if name.endswith(end):
                return name
    raise DataError(f"{path} has no topic that is named like commands: say which of {sorted(able)} with action_key=")


def _episodes(path: Path, stamps: np.ndarray, resets: Sequence[int]) -> list[_Episode]:
    edges = {0, len(stamps), *np.searchsorted(stamps, resets).tolist()}
    if not resets and len(stamps) > 1:
        gaps = np.diff(stamps)
        edges |= set((np.flatnonzero(gaps > _LONGEST_GAP * np.median(gaps)) + 1).tolist())
    outcomes = _outcomes(path)
    return [_Episode(a, b, _success(outcomes, int(stamps[a]), int(stamps[b - 1]))) for a, b in pairwise(sorted(edges))]


def _outcomes(path: Path) -> dict[int, bool]:
    marks: dict[int, bool] = {}
    for file in bag_files(path):
        if file.suffix == ".mcap":
            from robo_rlft.rosmsg.mcap_file import read_marks  # of an extra, which SQLite does not need

            marks |= {int(m["time_ns"]): m["success"] == "true" for m in read_marks(file, OUTCOME)}
    return marks


def _success(outcomes: dict[int, bool], first_ns: int, last_ns: int) -> bool | None:
    """What the mark of this episode says: the one within it, as its writer promises."""
    return next((success for time_ns, success in outcomes.items() if first_ns <= time_ns <= last_ns), None)


def _how(resets: Sequence[int]) -> str:
    return f"{len(resets)} resets" if resets else "pauses between the actions"


def _steps(path: Path, action: _Topic, wanted: dict[str, _Topic], stamps: np.ndarray, episode: _Episode) -> Steps:
    observation: dict[str, np.ndarray] = {}
    for key, topic in wanted.items():
        newest = _newest(np.array(topic.times), stamps, key)
        observation[key] = _frames(path, key, newest) if topic.shape else np.stack(topic.rows)[newest]
    rows = np.stack(action.rows[episode.first : episode.last])
    return Steps(observation=observation, action=rows, success=episode.success)


def _newest(times: np.ndarray, stamps: np.ndarray, key: str) -> np.ndarray:
    """Index of the newest message at each stamp."""
    order = np.argsort(times, kind="stable")
    found = np.searchsorted(times[order], stamps, side="right") - 1
    if found[0] < 0:
        raise DataError(f"{key} is silent when an episode begins: leave it out with policy_keys= or image_keys=")
    return order[found]


def _frames(path: Path, key: str, newest: np.ndarray) -> np.ndarray:
    """Pictures by their index among the messages of a topic."""
    needed, kept = set(newest.tolist()), {}
    for index, found in enumerate(read_bag(path, [key])):
        if index in needed:
            kept[index] = _picture(found)
    return np.stack([kept[index] for index in newest.tolist()])


def _picture(found: Recorded) -> np.ndarray:
    """RGB, uint8 [height, width, 3]."""
    message = found.message
    if found.kind == _PICTURES[1]:
        decoded = cv2.imdecode(np.asarray(message.data, np.uint8), cv2.IMREAD_COLOR)
        if decoded is None:
            raise DataError(f"a picture on {found.topic} ({message.format}) cannot be decoded")
        return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
    if message.encoding not in _COLOURS:
        raise DataError(f"{found.topic} has pictures of encoding {message.encoding}: {', '.join(_COLOURS)} can be read")
    channels = 1 if message.encoding == "mono8" else 3
    rows = np.asarray(message.data, np.uint8).reshape(message.height, message.step)
    picture = rows[:, : message.width * channels].reshape(message.height, message.width, channels)
    turn = _COLOURS[message.encoding]
    return picture.copy() if turn is None else cv2.cvtColor(picture, turn)
