"""A robot that goes on while the policy thinks: chunks come in the background and are played by the clock."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Any, Self

import numpy as np

from robo_rlft.errors import ConfigError, ServerAwayError, ServerError, UserError
from robo_rlft.export.manifest import DELAY, PREFIX
from robo_rlft.export.serving.client import FIRST_PAUSE_S, LONGEST_PAUSE_S, RemotePolicy

WAITS = 8
"""Last waits of which the longest tells how many actions pass before the next chunk."""


class Status(Enum):
    """What a queue has for the robot."""

    WAITING = "waiting"
    """No chunk has come yet: hold."""
    PLAYING = "playing"
    """The action of this moment."""
    SPENT = "spent"
    """The newest chunk ends before this moment: hold. It is never extended."""


@dataclass(frozen=True)
class Chunk:
    """A chunk that came.

    Attributes:
        stamp_ns: time of the observation that it was made of.
        actions: float32 [H, A]; the one of index i is for stamp_ns + i / rate.
        wait_s: from `request` to the chunk, in seconds.
    """

    stamp_ns: int
    actions: np.ndarray
    wait_s: float


@dataclass(frozen=True)
class _Question:
    """An observation that waits to be sent, and when it was given."""

    stamp_ns: int
    observation: Mapping[str, np.ndarray]
    given: float
    epoch: int


@dataclass(frozen=True)
class Moment:
    """What the queue says about one moment.

    Attributes:
        status: what there is.
        action: float32 [A] where the status is `PLAYING`, else None.
        index: of the action in its chunk, also beyond its end; -1 while `WAITING`.
        stamp_ns: time of the observation behind it; None while `WAITING`.
    """

    status: Status
    action: np.ndarray | None = None
    index: int = -1
    stamp_ns: int | None = None


class ChunkQueue:
    """Sends observations in the background and plays the chunks that come back, by time. A context manager.

    The action for a moment is `floor((now - stamp) * rate)` of the newest chunk, `stamp` being the time of the chunk's
    own observation: however long the answer took, late actions are left out and none is guessed. Where a chunk has
    ended and no other came, the status is `SPENT`, and what the robot does then is its own safety's decision. One
    question is on its way at a time; of observations that come meanwhile the newest is asked next. A broken connection
    is made anew for as long as the queue lives.

    A bundle with real-time chunking is also told the actions of the present chunk from the observation's time on, and
    how many of them will be executed meanwhile: as many as fit into the longest of the last waits. That figure only
    makes the new chunk go on smoothly; which action is played is never taken from it.

    Args:
        policy: the connection; the queue asks alone from then on. It is not closed with the queue.
        rate_hz: actions per second; None takes the robot's.
        horizon: actions of a chunk that may be played; None takes all of it.

    Raises:
        ConfigError: the bundle has a residual, which belongs into the robot's own loop, or `horizon` is no part of a
            chunk.
    """

    def __init__(self, policy: RemotePolicy, *, rate_hz: float | None = None, horizon: int | None = None) -> None:
        stage = policy.manifest.stage
        if policy.manifest.residual is not None:
            raise ConfigError("a residual acts at every control step: run the bundle on the robot, not over a network")
        self.horizon = stage.chunk if horizon is None else horizon
        if not 1 <= self.horizon <= stage.chunk:
            raise ConfigError(f"horizon must be 1 .. {stage.chunk}, the actions of a chunk, got {horizon}")
        self.policy, self.rate_hz = policy, rate_hz or policy.manifest.robot.rate_hz
        self._wake, self._ending = threading.Condition(), False
        self._next: _Question | None = None
        self._waits: deque[float] = deque(maxlen=WAITS)
        self._prefix = policy.manifest.input_shapes().get(PREFIX, (0,))[0]
        self._chunk: Chunk | None = None
        self._error: UserError | None = None
        self._epoch = 0
        self._thread = threading.Thread(target=self._work, name="policy-requests", daemon=True)
        self._thread.start()

    @property
    def chunk(self) -> Chunk | None:
        """The newest chunk."""
        return self._chunk

    @property
    def error(self) -> UserError | None:
        """Why the last question had no answer; None after one that had."""
        return self._error

    def request(self, stamp_ns: int, observation: Mapping[str, np.ndarray]) -> None:
        """Ask for a chunk; returns at once.

        Args:
            stamp_ns: time of the observation, of the clock that `at` is asked with.
            observation: per key [obs_horizon, ...], the present one last. It is copied.

        Raises:
            ServerError: asking again cannot help, as with a wrong token or after `close`.
        """
        copied = {key: np.array(value)[None] for key, value in observation.items()}
        with self._wake:
            if self._ending:
                raise ServerError("the queue was closed: make another ChunkQueue")
            if isinstance(self._error, ServerError) and not isinstance(self._error, ServerAwayError):
                raise self._error
            self._next = _Question(stamp_ns, copied, time.monotonic(), self._epoch)
            self._wake.notify()

    def at(self, now_ns: int) -> Moment:
        """The action for this moment, without waiting.

        Args:
            now_ns: of the clock that the observations' stamps are from.
        """
        chunk = self._chunk
        if chunk is None or now_ns < chunk.stamp_ns:
            return Moment(Status.WAITING)
        index = self._index(chunk, now_ns)
        if index >= self.horizon:
            return Moment(Status.SPENT, None, index, chunk.stamp_ns)
        return Moment(Status.PLAYING, chunk.actions[index], index, chunk.stamp_ns)

    def reset(self) -> None:
        """Forget chunks and questions, also the one on its way: a new episode begins."""
        with self._wake:
            self._epoch += 1
            self._next = self._chunk = None
            if isinstance(self._error, ServerAwayError) or not isinstance(self._error, ServerError):
                self._error = None

    def close(self) -> None:
        """Ask no more; the question on its way is left to itself."""
        with self._wake:
            self._ending = True
            self._wake.notify()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _index(self, chunk: Chunk, now_ns: int) -> int:
        return math.floor((now_ns - chunk.stamp_ns) * self.rate_hz / 1e9)

    def _work(self) -> None:
        pause = FIRST_PAUSE_S
        while (asked := self._taken()) is not None:
            try:
                self._answer(asked)
                pause = FIRST_PAUSE_S
            except UserError as error:
                self._error = error
                if isinstance(error, ServerAwayError):
                    self._rest(pause)
                    pause = min(2 * pause, LONGEST_PAUSE_S)

    def _taken(self) -> _Question | None:
        """The newest observation; None at the end."""
        with self._wake:
            self._wake.wait_for(lambda: self._ending or self._next is not None)
            asked, self._next = self._next, None
            return None if self._ending else asked

    def _answer(self, asked: _Question) -> None:
        actions = self.policy.act(asked.observation, **self._continued(asked.stamp_ns))[0]
        chunk = Chunk(asked.stamp_ns, actions, time.monotonic() - asked.given)
        with self._wake:
            self._waits.append(chunk.wait_s)
            newer = self._chunk is None or chunk.stamp_ns >= self._chunk.stamp_ns
            if asked.epoch == self._epoch and newer:
                self._chunk, self._error = chunk, None

    def _continued(self, stamp_ns: int) -> dict[str, Any]:
        """What a bundle with real-time chunking is told of the present chunk; nothing where there is none."""
        chunk = self._chunk
        if not self._prefix or chunk is None:
            return {}
        first = self._index(chunk, stamp_ns)
        left = chunk.actions[first:] if first >= 0 else chunk.actions[:0]
        if not len(left):
            return {}
        # The model takes P of them, however many are left: zeros stand for the others.
        prefix = np.zeros((1, self._prefix, left.shape[1]), np.float32)
        count = min(len(left), self._prefix)
        prefix[0, :count] = left[:count]
        steps = math.ceil(max(self._waits) * self.rate_hz)
        return {PREFIX: prefix, DELAY: min(steps, count)}

    def _rest(self, seconds: float) -> None:
        with self._wake:
            self._wake.wait_for(lambda: self._ending, seconds)
