"""The worker process of a pool: obeys orders from a pipe until it is closed."""

from __future__ import annotations

import contextlib
import pickle
import signal
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from robo_rlft.envs.pool.crew import Crew
from robo_rlft.envs.pool.forking import Offspring
from robo_rlft.envs.pool.memory import Attached
from robo_rlft.errors import UserError


def work(pipe: Connection, make: bytes, rows: Sequence[int], seeds: Sequence[int | None]) -> None:
    """Serve `rows`. Ends when told to, or when the other end of the pipe is gone.

    Args:
        pipe: orders come in, `("ok", result)` or `("failed", exception or text)` goes out.
        make: pickled `SingleFactory`.
        rows, seeds: see `Crew`.
    """
    # Ctrl-C is for the main process, which then closes its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    crew: Crew | None = None
    arenas: list[Attached] = []
    offspring = Offspring()
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            crew = Crew(pickle.loads(make), rows, seeds)
            pipe.send(("ok", crew.describe()))
        except Exception as error:
            pipe.send(("failed", _sendable(error)))
            return
        while (message := pipe.recv())[0] != "close":
            if message[0] == "fork":
                pipe = offspring.fork(pipe, crew, message[1])
            else:
                pipe.send(_answer(crew, arenas, message))
    if crew is not None:
        crew.close()
        crew.arrays = {}
    for arena in arenas:
        arena.close()
    offspring.wait()


def _answer(crew: Crew, arenas: list[Attached], message: tuple[Any, ...]) -> tuple[str, Any]:
    order, *arguments = message
    try:
        if order == "attach":
            return "ok", _attach(crew, arenas, arguments[0])
        return "ok", crew.obey(order, *arguments)
    except Exception as error:
        return "failed", _sendable(error)


def _attach(crew: Crew, arenas: list[Attached], wanted: Sequence[tuple[str, Any]]) -> None:
    crew.arrays = {}
    for arena in arenas:
        arena.close()
    arenas[:] = [Attached(name, layout) for name, layout in wanted]
    crew.arrays = {name: values for arena in arenas for name, values in arena.arrays.items()}


def _sendable(error: Exception) -> UserError | str:
    """A user's error as it is; of a bug the traceback, which a pickled exception would lose."""
    if isinstance(error, UserError):
        with contextlib.suppress(Exception):
            pickle.loads(pickle.dumps(error))
            return error
        return UserError(str(error))
    return "".join(traceback.format_exception(error))
