"""Who looks after a pool's environments: this process, or worker processes that are replaced once when they die."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import send_handle
from typing import Any, Protocol

from robo_rlft.envs.pool.crew import Crew, Description
from robo_rlft.envs.pool.forking import ForkedProcess
from robo_rlft.envs.pool.memory import Arena
from robo_rlft.envs.pool.single import SingleFactory
from robo_rlft.envs.pool.worker import work
from robo_rlft.errors import UserError

log = logging.getLogger(__name__)
TIMEOUT_S = 600.0
"""A worker that is silent for so long counts as hung."""
ONE_THREAD: dict[str, str] = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
"""Of workers: there are as many of them as cores."""


class WorkerDiedError(Exception):
    """A worker process ended by itself; the message says which and how."""


class Host(Protocol):
    """Some rows of a pool."""

    rows: list[int]
    description: Description

    def attach(self, arenas: Sequence[Arena]) -> None:
        """Use these arrays from now on."""

    def send(self, order: str, *arguments: Any) -> None:
        """Give an order, see `Crew`."""

    def receive(self) -> Any:
        """The result of the last order."""
        ...

    def dismiss(self) -> None:
        """Begin to end, without waiting for it."""

    def close(self) -> None:
        """End."""


class LocalHost:
    """Environments in this process."""

    def __init__(self, make: SingleFactory, rows: Sequence[int], seeds: Sequence[int | None]) -> None:
        self.rows = list(rows)
        self._crew = Crew(make, rows, seeds)
        self._result: Any = None
        self.description = self._crew.describe()

    def attach(self, arenas: Sequence[Arena]) -> None:
        """See `Host`."""
        self._crew.arrays = {name: values for arena in arenas for name, values in arena.arrays.items()}

    def send(self, order: str, *arguments: Any) -> None:
        """See `Host`."""
        self._result = self._crew.obey(order, *arguments)

    def receive(self) -> Any:
        """See `Host`."""
        return self._result

    def dismiss(self) -> None:
        """See `Host`."""

    def close(self) -> None:
        """See `Host`."""
        self._crew.close()


class ProcessHost:
    """Environments in a worker process.

    Args:
        number: of the worker, for messages.
        make: makes one environment.
        rows: of the pool.
        seeds: of their first episodes.
        preload: modules that all workers share the memory of.
    """

    def __init__(
        self,
        number: int,
        make: SingleFactory,
        rows: Sequence[int],
        seeds: Sequence[int | None],
        preload: Sequence[str] = (),
    ) -> None:
        self.rows, self.number = list(rows), number
        self._make, self._preload = pickle.dumps(make), list(preload)
        self.restarts = 0
        self.description: Description
        self._start(seeds)

    @property
    def name(self) -> str:
        """`worker 3 (environments 6..7, pid 4711)`."""
        return f"worker {self.number} (environments {self.rows[0]}..{self.rows[-1]}, pid {self._process.pid})"

    def ready(self) -> None:
        """Wait until the environments are made."""
        self.description = self.receive()

    def restart(self, seeds: Sequence[int | None], reason: str) -> None:
        """Put a new process in the place of one that died.

        Raises:
            UserError: it is the second time.
        """
        if self.restarts:
            raise UserError(
                f"{reason}; it had been restarted before: look for what the simulator printed, for memory "
                "(dmesg | grep -i oom), or use fewer environments"
            )
        self.restarts += 1
        log.warning("%s; restarted, its episodes are cut off", reason)
        self._abandon()
        self._start(seeds)
        self.ready()

    def attach(self, arenas: Sequence[Arena]) -> None:
        """See `Host`."""
        self.send("attach", [(arena.name, arena.layout) for arena in arenas])
        self.receive()

    def send(self, order: str, *arguments: Any) -> None:
        """See `Host`.

        Raises:
            WorkerDiedError: the process is gone.
        """
        try:
            self._pipe.send((order, *arguments))
        except (BrokenPipeError, ConnectionResetError) as error:
            raise WorkerDiedError(self._obituary()) from error

    def receive(self) -> Any:
        """See `Host`.

        Raises:
            WorkerDiedError: the process is gone.
            UserError: as raised by the simulator, or the worker hangs.
            RuntimeError: any other exception of the worker, with its traceback.
        """
        if not wait([self._pipe], TIMEOUT_S):
            self._process.kill()
            raise UserError(f"{self.name} gave no answer for {TIMEOUT_S:.0f} s and was killed: the simulator hangs")
        try:
            status, result = self._pipe.recv()
        except (EOFError, ConnectionResetError) as error:
            raise WorkerDiedError(self._obituary()) from error
        if status == "ok":
            return result
        if isinstance(result, UserError):
            raise result
        raise RuntimeError(f"{self.name} failed:\n{result}")

    def succeed(self, leader: ProcessHost) -> None:
        """Replace the process by a copy of another host's, which goes on with that one's episode as this row.

        Raises:
            WorkerDiedError, UserError: the leader is gone, or cannot be copied.
        """
        ours, theirs = multiprocessing.get_context("forkserver").Pipe()
        try:
            leader.send("fork", self.rows[0])
            send_handle(leader._pipe, theirs.fileno(), leader._process.pid)
            pid = leader.receive()
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._abandon()
        self._pipe, self._process = ours, ForkedProcess(pid)
        self.receive()

    def dismiss(self) -> None:
        """See `Host`."""
        with contextlib.suppress(OSError):
            self._pipe.send(("close",))

    def close(self) -> None:
        """See `Host`."""
        self.dismiss()
        self._process.join(5.0)
        self._abandon()

    def _start(self, seeds: Sequence[int | None]) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([work.__module__, *self._preload])
        self._pipe, theirs = context.Pipe()
        arguments = (theirs, self._make, self.rows, list(seeds))
        self._process: BaseProcess | ForkedProcess = context.Process(
            target=work, args=arguments, daemon=True, name=f"robo-rlft-{self.number}"
        )
        with _environment(ONE_THREAD), _main_hidden(self._make):
            self._process.start()
        theirs.close()

    def _abandon(self) -> None:
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        self._pipe.close()

    def _obituary(self) -> str:
        self._process.join(5.0)
        code = self._process.exitcode
        if code is not None and code < 0:
            return f"{self.name} was killed by {signal.Signals(-code).name}"
        return f"{self.name} ended with exit code {code}"


def pipe_of(host: ProcessHost) -> Connection:
    """For waiting on several hosts at once."""
    return host._pipe


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for a new process: libraries read them when they are loaded."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _main_hidden(make: bytes) -> Iterator[None]:
    """Start a process that does not run the user's script again, unless the environment is defined in it.

    multiprocessing imports the main script in every new process, so that a script without `if __name__ == "__main__":`
    would start workers of workers.
    """
    main = sys.modules["__main__"]
    if b"__main__" not in make:
        sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
