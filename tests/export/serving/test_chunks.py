from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robo_rlft.errors import ConfigError, ServerAwayError, ServerError, SpecError
from robo_rlft.export.manifest import Manifest, ResidualStage, read_manifest
from robo_rlft.export.serving.backend import BundleBackend
from robo_rlft.export.serving.chunks import Chunk, ChunkQueue, Moment, Status
from robo_rlft.export.serving.client import RemotePolicy

from .conftest import ContinuedManifest, MarkedBackend, marked, serving, until, url_of
from .processes import free_port, start_server

MS = 1_000_000


class Slow:
    """Stands for a connection: each answer is allowed to come by `go`, and marks what was asked."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest, self.asked, self.told = manifest, list[float](), list[dict[str, Any]]()
        self.go, self.error = threading.Semaphore(0), None

    def act(self, observation: Mapping[str, np.ndarray], **told: Any) -> np.ndarray:
        mark = float(observation["policy"][0, -1, 0])
        self.told.append(told)
        self.asked.append(mark)
        self.go.acquire()
        if self.error is not None:
            raise self.error
        return np.full((1, *self.manifest.event), mark) + np.arange(4)[None, :, None]


@pytest.fixture
def slow(exported: Path) -> Slow:
    return Slow(read_manifest(exported))


@pytest.fixture
def queue(slow: Slow) -> Iterator[ChunkQueue]:
    """Of a robot at 50 Hz with chunks of 4 actions."""
    with ChunkQueue(slow) as made:  # pyright: ignore[reportArgumentType]
        yield made
        slow.go.release(100)


def test_before_the_first_chunk_the_robot_waits(queue: ChunkQueue) -> None:
    assert queue.at(0) == Moment(Status.WAITING)


def test_a_late_chunk_begins_where_the_clock_is(queue: ChunkQueue, slow: Slow) -> None:
    """The answer took 45 ms: its first two actions are past, and are never played."""
    queue.request(1000 * MS, marked(10.0))
    slow.go.release()
    until(lambda: queue.chunk is not None)
    moment = queue.at(1045 * MS)
    assert (moment.status, moment.index, moment.stamp_ns) == (Status.PLAYING, 2, 1000 * MS)
    assert moment.action is not None
    assert moment.action.tolist() == [12.0, 12.0]


def test_a_chunk_ends_after_its_last_action_and_is_not_extended(queue: ChunkQueue, slow: Slow) -> None:
    queue.request(0, marked(0.0))
    slow.go.release()
    until(lambda: queue.chunk is not None)
    assert queue.at(80 * MS - 1).index == 3
    assert queue.at(80 * MS) == Moment(Status.SPENT, None, 4, 0)
    assert queue.at(10**12).status is Status.SPENT


@given(
    stamp=st.integers(0, 2**62),
    late=st.integers(0, 10**11),
    rate=st.sampled_from([1.0, 10.0, 20.0, 50.0, 125.0, 1000.0]),
)
def test_the_index_is_the_time_since_the_observation_in_control_steps(stamp: int, late: int, rate: float) -> None:
    """Against exact fractions; within a nanosecond of a step's beginning either side is right."""
    queue = ChunkQueue.__new__(ChunkQueue)
    queue.rate_hz, queue.horizon = rate, 10**9
    queue._chunk = Chunk(stamp, np.zeros((1, 1)), 0.0)
    index = _index_of(queue, stamp + late)
    nearby = {math.floor(Fraction(late + d) * Fraction(rate) / 10**9) for d in (-1, 0, 1)}
    assert index in nearby
    if late * Fraction(rate) % 10**9 == 0:
        assert index == late * Fraction(rate) / 10**9


def _index_of(queue: ChunkQueue, now_ns: int) -> int:
    """The queue's own arithmetic, without an array of a billion actions."""
    queue.horizon = 0
    return queue.at(now_ns).index


def test_of_observations_that_come_meanwhile_the_newest_is_asked(queue: ChunkQueue, slow: Slow) -> None:
    queue.request(0, marked(0.0))
    until(lambda: slow.asked == [0.0])
    for mark in (1.0, 2.0, 3.0):
        queue.request(int(mark) * 10 * MS, marked(mark))
    slow.go.release(2)
    until(lambda: queue.chunk is not None and queue.chunk.stamp_ns == 30 * MS)
    assert slow.asked == [0.0, 3.0]


def test_the_old_chunk_is_played_until_the_new_one_is_there(queue: ChunkQueue, slow: Slow) -> None:
    queue.request(0, marked(0.0))
    slow.go.release()
    until(lambda: queue.chunk is not None)
    queue.request(20 * MS, marked(100.0))
    until(lambda: len(slow.asked) == 2)
    assert queue.at(41 * MS).stamp_ns == 0
    slow.go.release()
    until(lambda: queue.chunk is not None and queue.chunk.stamp_ns == 20 * MS)
    moment = queue.at(41 * MS)
    assert moment.index == 1
    assert moment.action is not None
    assert moment.action[0] == 101.0


def test_an_observation_is_copied(queue: ChunkQueue, slow: Slow) -> None:
    values = marked(1.0)
    queue.request(0, marked(0.0))
    until(lambda: slow.asked == [0.0])
    queue.request(10 * MS, values)
    values["policy"][:] = 9.0
    slow.go.release(2)
    until(lambda: slow.asked == [0.0, 1.0])


def test_an_older_observation_does_not_replace_a_newer_chunk(queue: ChunkQueue, slow: Slow) -> None:
    for stamp in (50, 40):
        queue.request(stamp * MS, marked(stamp))
        slow.go.release()
        until(lambda s=stamp: s in slow.asked)
    until(lambda: queue.chunk is not None)
    time.sleep(0.05)
    assert queue.chunk is not None
    assert queue.chunk.stamp_ns == 50 * MS


def test_a_reset_forgets_the_chunk_that_is_on_its_way(queue: ChunkQueue, slow: Slow) -> None:
    queue.request(0, marked(0.0))
    until(lambda: slow.asked == [0.0])
    queue.reset()
    slow.go.release()
    queue.request(5 * MS, marked(5.0))
    until(lambda: slow.asked == [0.0, 5.0])
    assert queue.at(6 * MS).status is Status.WAITING
    slow.go.release()
    until(lambda: queue.at(6 * MS).status is Status.PLAYING)


def test_a_refused_observation_is_told_and_the_next_is_asked(queue: ChunkQueue, slow: Slow) -> None:
    slow.error = SpecError("entry 'x' is nan")
    queue.request(0, marked(0.0))
    slow.go.release()
    until(lambda: queue.error is slow.error)
    slow.error = None
    queue.request(1, marked(1.0))
    slow.go.release()
    until(lambda: queue.chunk is not None)
    assert queue.error is None


def test_what_cannot_get_better_is_raised_at_the_next_request(queue: ChunkQueue, slow: Slow) -> None:
    slow.error = ServerError("serves another policy now")
    queue.request(0, marked(0.0))
    slow.go.release()
    until(lambda: queue.error is not None)
    with pytest.raises(ServerError, match="another policy"):
        queue.request(1, marked(1.0))


def test_after_closing_nothing_is_asked(queue: ChunkQueue) -> None:
    queue.close()
    with pytest.raises(ServerError, match="queue was closed"):
        queue.request(0, marked(0.0))


def test_a_part_of_the_chunk_may_be_all_that_is_played(slow: Slow) -> None:
    with ChunkQueue(slow, horizon=2, rate_hz=100.0) as queue:  # pyright: ignore[reportArgumentType]
        queue.request(0, marked(0.0))
        slow.go.release()
        until(lambda: queue.chunk is not None)
        assert queue.at(19 * MS).index == 1
        assert queue.at(20 * MS).status is Status.SPENT
    for horizon in (0, 5):
        with pytest.raises(ConfigError, match=r"horizon must be 1 \.\. 4"):
            ChunkQueue(slow, horizon=horizon)  # pyright: ignore[reportArgumentType]


def test_real_time_chunking_is_told_what_is_on_its_way(slow: Slow) -> None:
    """Actions 10 .. 13 since 0 ms at 50 Hz, then an observation at 45 ms: actions 12 and 13 are left of the chunk."""
    slow.manifest = ContinuedManifest(**vars(slow.manifest))
    with ChunkQueue(slow) as queue:  # pyright: ignore[reportArgumentType]
        queue.request(0, marked(10.0))
        time.sleep(0.025)
        slow.go.release()
        until(lambda: queue.chunk is not None)
        assert slow.told == [{}], "no chunk before the first"
        assert queue.chunk is not None
        steps = math.ceil(queue.chunk.wait_s * 50)
        assert steps >= 2
        for asked, stamp, left in ((2, 5, [10.0, 11.0, 12.0]), (3, 45, [12.0, 13.0, 0.0])):
            queue.reset()
            queue._chunk = Chunk(0, np.float32([[10], [11], [12], [13]]) * np.ones(2, np.float32), 0.0)
            queue.request(stamp * MS, marked(0.0))
            until(lambda n=asked: len(slow.told) == n)
            told = slow.told[-1]
            assert told["prefix"][0, :, 0].tolist() == left
            assert told["delay"] == min(steps, 3 if stamp == 5 else 2)
            slow.go.release()
            until(lambda s=stamp: queue.chunk is not None and queue.chunk.stamp_ns == s * MS)
        queue.request(10_000 * MS, marked(0.0))
        until(lambda: len(slow.told) == 4)
        assert slow.told[-1] == {}, "a spent chunk is none"
        slow.go.release(5)


def test_a_residual_stays_on_the_robot(slow: Slow) -> None:
    slow.manifest = replace(slow.manifest, residual=ResidualStage("residual.onnx", 50.0, ("policy",), 0.1))
    with pytest.raises(ConfigError, match="a residual acts at every control step"):
        ChunkQueue(slow)  # pyright: ignore[reportArgumentType]


def test_a_robot_goes_on_while_the_policy_thinks(exported: Path) -> None:
    """Inferences of 50 ms: once there is a chunk, here of a second, there always is one, and no call waits for it."""
    with serving(MarkedBackend(exported, seconds=0.05)) as server, RemotePolicy(url_of(server)) as policy:
        statuses, spent = [], []
        with ChunkQueue(policy, rate_hz=4.0) as queue:
            for step in range(40):
                now = time.monotonic_ns()
                queue.request(now, marked(step))
                statuses.append(queue.at(now).status)
                spent.append(time.monotonic_ns() - now)
                time.sleep(0.01)
    first = statuses.index(Status.PLAYING)
    assert set(statuses[first:]) == {Status.PLAYING}
    assert np.median(spent) < 5 * MS


def test_a_queue_outlives_its_server(exported: Path) -> None:
    """Killed: the chunk runs out and says so. Started again: chunks come again, without a word from the robot."""
    port = free_port()
    process, url = start_server(exported, port=port)
    with RemotePolicy(url, reconnect_s=0.1) as policy, ChunkQueue(policy) as queue:

        def ask() -> Status:
            now = time.monotonic_ns()
            queue.request(now, marked(0.0))
            time.sleep(0.02)
            return queue.at(time.monotonic_ns()).status

        until(lambda: ask() is Status.PLAYING)
        process.kill()
        process.communicate()
        until(lambda: ask() is Status.SPENT)
        until(lambda: isinstance(queue.error, ServerAwayError))
        with serving(BundleBackend(exported), port=port):
            until(lambda: ask() is Status.PLAYING)
            assert queue.error is None
            assert policy.reconnected >= 1
