"""Child processes for tests of what a kill or a second writer does."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

KILLED = -signal.SIGKILL


class Child:
    """A forked process that runs `work(say)`; `say` sends one line to `heard`."""

    def __init__(self, work: Callable[[Callable[[str], None]], None]) -> None:
        read_end, write_end = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                os.close(read_end)
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                work(lambda line: _void(os.write(write_end, line.encode() + b"\n")))
                status = 0
            finally:
                os._exit(status)
        os.close(write_end)
        self._lines = os.fdopen(read_end)

    def heard(self) -> str:
        """The next line, without its end; empty when the child is gone."""
        return self._lines.readline().strip()

    def kill(self) -> list[str]:
        """Kill -9; returns the lines not heard yet."""
        os.kill(self.pid, signal.SIGKILL)
        self.wait()
        return self._lines.read().splitlines()

    def wait(self) -> int:
        """Exit status, or minus the signal that ended it."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def _killed_at_line(work: Callable[[], None], files: tuple[str, ...], line: int, after: str = "") -> bool:
    """Run `work` in a child that kills itself before the `line`-th executed line of the given source files.

    With `after`, lines count from the first call of the function of that name.

    Returns:
        Whether it was killed; False when the work has fewer lines and succeeded.
    """

    def run(_: Callable[[str], None]) -> None:
        left, counting = line, not after

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal left, counting
            if not frame.f_code.co_filename.endswith(files):
                return None
            counting = counting or frame.f_code.co_name == after
            if event == "line" and counting:
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)
        work()

    status = Child(run).wait()
    assert status in (0, KILLED)
    return status == KILLED


def _void(_: object) -> None:
    """Drop a value."""


@pytest.fixture
def spawn() -> type[Child]:
    """`spawn(work)` runs `work` in a child process."""
    return Child


@pytest.fixture
def killed_at_line() -> Callable[..., bool]:
    """See `_killed_at_line`."""
    return _killed_at_line
