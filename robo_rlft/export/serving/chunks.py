"""A robot that goes on while the policy thinks: chunks come in the background and are played by the clock."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Self

import numpy as np

from robo_rlft.errors import ConfigError, ServerAwayError, ServerError, UserError
from robo_rlft.export.serving.client import FIRST_PAUSE_S, LONGEST_PAUSE_S, RemotePolicy


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
        round_trip_s: from the request to the chunk, in seconds.
    """

    stamp_ns: int
    actions: np.ndarray
    round_trip_s: float


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
        self._next: tuple[int, Mapping[str, np.ndarray]] | None = None
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
            self._next = (stamp_ns, copied)
            self._wake.notify()

    def at(self, now_ns: int) -> Moment:
        """The action for this moment, without waiting.

        Args:
            now_ns: of the clock that the observations' stamps are from.
        """
        chunk = self._chunk
        if chunk is None or now_ns < chunk.stamp_ns:
            return Moment(Status.WAITING)
        index = math.floor((now_ns - chunk.stamp_ns) * self.rate_hz / 1e9)
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

    def _work(self) -> None:
        pause = FIRST_PAUSE_S
        while (asked := self._taken()) is not None:
            stamp_ns, observation, epoch = asked
            try:
                self._keep(stamp_ns, observation, epoch)
                pause = FIRST_PAUSE_S
            except UserError as error:
                self._error = error
                if isinstance(error, ServerAwayError):
                    self._rest(pause)
                    pause = min(2 * pause, LONGEST_PAUSE_S)

    def _taken(self) -> tuple[int, Mapping[str, np.ndarray], int] | None:
        """The newest observation; None at the end."""
        with self._wake:
            self._wake.wait_for(lambda: self._ending or self._next is not None)
            asked, self._next = self._next, None
            return None if self._ending or asked is None else (*asked, self._epoch)

    def _keep(self, stamp_ns: int, observation: Mapping[str, np.ndarray], epoch: int) -> None:
        start = time.monotonic()
        actions = self.policy.act(observation)[0]
        chunk = Chunk(stamp_ns, actions, time.monotonic() - start)
        with self._wake:
            newer = self._chunk is None or stamp_ns >= self._chunk.stamp_ns
            if epoch == self._epoch and newer:
                self._chunk, self._error = chunk, None

    def _rest(self, seconds: float) -> None:
        with self._wake:
            self._wake.wait_for(lambda: self._ending, seconds)
