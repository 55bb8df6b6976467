"""Recordings that `rosbags`, which shares no code with ours, wrote; and ours with their marks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rosbags")
pytest.importorskip("mcap")

from rosbags import highlevel
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from robo_rlft.data import Dataset
from robo_rlft.data.convert import convert
from robo_rlft.data.validate import validate
from robo_rlft.errors import ConfigError, DataError
from robo_rlft.rosmsg.bags import read_bag
from robo_rlft.rosmsg.cdr import Message
from robo_rlft.rosmsg.known import BOOL, FLOAT64_ARRAY
from robo_rlft.rosmsg.labels import labelled_array
from robo_rlft.rosmsg.mcap_file import Recorder

STORE = get_typestore(Stores.ROS2_KILTED)
MS = 1_000_000
STEPS = 12


def _joint_state(k: int, names: list[str]) -> Any:
    types = STORE.types
    stamp = types["builtin_interfaces/msg/Time"](0, 0)
    header = types["std_msgs/msg/Header"](stamp, "")
    values = {"a": k + 0.25, "b": -k - 0.5}
    position = np.array([values[n] for n in names])
    return types["sensor_msgs/msg/JointState"](header, names, position, np.zeros(0), np.zeros(0))


def _picture(k: int) -> Any:
    types = STORE.types
    header = types["std_msgs/msg/Header"](types["builtin_interfaces/msg/Time"](0, 0), "")
    data = np.full(4 * 6 * 3, k, np.uint8)
    data[::3] = 200  # blue first
    return types["sensor_msgs/msg/Image"](header, 4, 6, "bgr8", 0, 18, data)


def _command(k: int) -> Any:
    types = STORE.types
    layout = types["std_msgs/msg/MultiArrayLayout"]([], 0)
    return types["std_msgs/msg/Float64MultiArray"](layout, np.array([k, 2.0 * k, -1.0]))


@pytest.fixture(params=[StoragePlugin.SQLITE3, StoragePlugin.MCAP], ids=["sqlite", "mcap"])
def bag(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Joints in changing order and pictures at 50 Hz, a command 5 ms after each; a pause in the middle."""
    folder = tmp_path / "bag"
    kinds = {
        "/joint_states": "sensor_msgs/msg/JointState",
        "/camera": "sensor_msgs/msg/Image",
        "/arm/commands": FLOAT64_ARRAY,
    }
    with Writer(folder, version=9, storage_plugin=request.param) as writer:
        made = {t: writer.add_connection(t, kind, typestore=STORE) for t, kind in kinds.items()}
        for k in range(STEPS):
            at = 10**15 + 20 * MS * k + (10**10 if k >= 8 else 0)
            names = ["a", "b"] if k % 2 == 0 else ["b", "a"]
            for topic, late, message in (
                ("/joint_states", 0, _joint_state(k, names)),
                ("/camera", 1, _picture(k)),
                ("/arm/commands", 5, _command(k)),
            ):
                data = STORE.serialize_cdr(message, kinds[topic])
                writer.write(made[topic], at + late * MS, data)
    return folder


def test_a_foreign_recording(bag: Path, tmp_path: Path) -> None:
    report = convert(bag, tmp_path / "ours")
    assert validate(tmp_path / "ours").findings == ()
    assert (report.format, report.num_episodes, report.num_steps) == ("rosbag", 2, STEPS)
    assert report.rate_hz == pytest.approx(50.0)
    dataset = Dataset.open(tmp_path / "ours")
    first, second = dataset.episode(0), dataset.episode(1)
    np.testing.assert_array_equal(first.action, [[k, 2 * k, -1] for k in range(8)])
    np.testing.assert_array_equal(second.action, [[k, 2 * k, -1] for k in range(8, STEPS)])
    np.testing.assert_array_equal(first.observation["policy"][:8], [[k + 0.25, -k - 0.5] for k in range(8)])
    pictures = np.asarray(second.observation["image/_camera"])
    assert pictures.shape == (5, 4, 6, 3)
    assert pictures[0, 0, 0].tolist() == [8, 8, 200]  # red first


def test_every_message_is_that_of_the_independent_reader(bag: Path) -> None:
    with highlevel.AnyReader([bag]) as reader:
        theirs = [(c.topic, t, reader.deserialize(raw, c.msgtype)) for c, t, raw in reader.messages()]
    ours = list(read_bag(bag))
    assert [(m.topic, m.time_ns) for m in ours] == [(topic, t) for topic, t, _ in theirs]
    for mine, (topic, _, yours) in zip(ours, theirs, strict=True):
        if topic == "/joint_states":
            assert mine.message.name == yours.name
            np.testing.assert_array_equal(mine.message.position, yours.position)


def _write(path: Path, skew_ns: int = 0, success: str = "true") -> None:
    """Two episodes of a policy's own topics; the observation is recorded later than the action that answers it."""
    with Recorder(path) as recorder:
        for episode in range(2):
            begin = 10**15 + 10**9 * episode
            recorder.write("/policy/reset", BOOL, Message(data=True), begin - MS)
            for k in range(5):
                stamp = begin + 20 * MS * k
                seen, done = labelled_array(("x", "y"), [k, episode], stamp), labelled_array(("u",), [10 * k], stamp)
                recorder.write("/policy/action", FLOAT64_ARRAY, done, stamp + 2 * MS)
                recorder.write("/policy/observation", FLOAT64_ARRAY, seen, stamp + 2 * MS + skew_ns)
            facts = {"success": success if episode else "false"}
            recorder.mark("robo_rlft.episode", begin + 80 * MS, facts)


@pytest.mark.parametrize("skew_ns", [0, MS, 30 * MS])
def test_stamps_join_what_belongs_together(tmp_path: Path, skew_ns: int) -> None:
    _write(tmp_path / "x.mcap", skew_ns)
    convert(tmp_path / "x.mcap", tmp_path / "ours")
    dataset = Dataset.open(tmp_path / "ours")
    assert [dataset.episode(i).success for i in range(2)] == [False, True]
    for i in range(2):
        episode = dataset.episode(i)
        np.testing.assert_array_equal(episode.observation["policy"][:5], [[k, i] for k in range(5)])
        np.testing.assert_array_equal(episode.action[:, 0], [0, 10, 20, 30, 40])


def test_another_topic_can_be_the_action(tmp_path: Path) -> None:
    _write(tmp_path / "x.mcap")
    convert(tmp_path / "x.mcap", tmp_path / "ours", action_key="/policy/observation", policy_keys=["/policy/action"])
    assert Dataset.open(tmp_path / "ours").episode(0).action.shape == (5, 2)
    with pytest.raises(ConfigError, match="action_key: unknown topic '/polcy/action': did you mean /policy/action"):
        convert(tmp_path / "x.mcap", tmp_path / "theirs", action_key="/polcy/action")


def test_what_cannot_be_converted_says_why(tmp_path: Path) -> None:
    path = tmp_path / "x.mcap"
    with Recorder(path) as recorder:
        recorder.write("/a", FLOAT64_ARRAY, labelled_array(("x",), [1.0], 5), 5)
    with pytest.raises(DataError, match=r"no topic that is named like commands: say which of \['/a'\]"):
        convert(path, tmp_path / "ours")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match="cannot be read as MCAP"):
        convert(path, tmp_path / "ours")
    (tmp_path / "y.db3").write_bytes(b"no database at all, but long enough to be looked at" * 30)
    with pytest.raises(DataError, match="cannot be read as a recording"):
        convert(tmp_path / "y.db3", tmp_path / "ours")


def test_a_topic_that_is_silent_at_first_is_named(tmp_path: Path) -> None:
    with Recorder(tmp_path / "x.mcap") as recorder:
        for k in range(4):
            recorder.write("/commands", FLOAT64_ARRAY, labelled_array(("u",), [k], 10 * k + 5), 10 * k + 5)
            if k > 1:
                recorder.write("/late", FLOAT64_ARRAY, labelled_array(("x",), [k], 10 * k), 10 * k)
    with pytest.raises(DataError, match="/late is silent when an episode begins: leave it out"):
        convert(tmp_path / "x.mcap", tmp_path / "ours")
