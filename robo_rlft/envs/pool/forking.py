"""Copies of a running worker: the process forks, and the copy serves another row from then on.

A simulator whose states do not come back exactly goes on exactly in both processes of an `os.fork()`.
"""

from __future__ import annotations

import contextlib
import os
import time
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle

import psutil

from robo_rlft.envs.pool.crew import Crew
from robo_rlft.errors import UserError

_PATIENCE_S = 5.0
"""How long a worker that ends waits for its copies to end."""


class Offspring:
    """A worker's copies of itself."""

    def __init__(self) -> None:
        self._pids: list[int] = []

    def fork(self, pipe: Connection, crew: Crew, row: int) -> Connection:
        """Copy this process. Both return, with the pipe that each of them serves from now on.

        Args:
            pipe: where the order came from; the copy's end of its own pipe follows in it.
            crew: of one environment; the copy's becomes that of `row`.
            row: of the copy.
        """
        handle = recv_handle(pipe)
        self._reap()
        try:
            pid = os.fork()
        except OSError as error:
            os.close(handle)
            message = f"cannot copy a worker ({error.strerror}): use fewer environments, or allow more processes"
            pipe.send(("failed", UserError(message)))
            return pipe
        if pid:
            os.close(handle)
            self._pids.append(pid)
            pipe.send(("ok", pid))
            return pipe
        pipe.close()
        self._pids.clear()
        crew.become(row)
        own = Connection(handle)
        own.send(("ok", None))
        return own

    def wait(self) -> None:
        """Let the copies end first, so that none is left without a parent to tell of its end."""
        deadline = time.monotonic() + _PATIENCE_S
        while self._pids and time.monotonic() < deadline:
            self._reap()
            time.sleep(0.01)

    def _reap(self) -> None:
        for pid in list(self._pids):
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0] == 0:
                    continue
            self._pids.remove(pid)


class ForkedProcess:
    """A copy of a worker, as its host sees it: a process, but not its own child.

    Args:
        pid: of the copy.
    """

    exitcode = None
    """Only its parent is told."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._process = psutil.Process(pid)

    def is_alive(self) -> bool:
        """It has not ended."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return self._process.is_running() and self._process.status() != psutil.STATUS_ZOMBIE
        return False

    def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self._process.kill()

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end."""
        deadline = time.monotonic() + (_PATIENCE_S if timeout is None else timeout)
        while self.is_alive() and time.monotonic() < deadline:
            time.sleep(0.002)
