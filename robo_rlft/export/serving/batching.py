"""Who is computed next, and with whom: the newest request of every client, in turns, several in one inference."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from robo_rlft.errors import UserError
from robo_rlft.export.serving.contract import Request
from robo_rlft.export.serving.statistics import Statistics

Compute = Callable[[Sequence[Request]], list[np.ndarray | UserError]]
"""One inference: to each request its actions or what is wrong with it."""


class SupersededError(Exception):
    """A newer request of the same client took this one's place."""


@dataclass(frozen=True)
class Answer:
    """Actions, with what the server needs to say how long they took."""

    actions: np.ndarray
    queue_s: float
    inference_s: float
    rows: int


@dataclass(eq=False)
class Job:
    """A request that waits, or is being computed."""

    request: Request
    result: asyncio.Future[Answer]
    arrived: float = field(default_factory=time.perf_counter)


class Batcher:
    """Holds at most one waiting request per client, and computes them in a thread of its own.

    A newer request takes the place of its client's older one, which ends with `SupersededError`: a robot wants the
    chunk of what it sees now. Clients take turns: whoever was just computed goes to the end.

    Args:
        compute: one inference.
        statistics: where times are noted.
        max_rows: most rows of one inference; a request with more is computed alone.
        max_wait_s: longest time that a request waits for others to be computed with, in seconds. Nobody waits once
            every connected client has asked.
    """

    def __init__(self, compute: Compute, statistics: Statistics, max_rows: int = 64, max_wait_s: float = 0.002) -> None:
        self._compute, self._statistics = compute, statistics
        self._max_rows, self._max_wait_s = max_rows, max_wait_s
        self._waiting: dict[Hashable, Job] = {}
        self._clients: set[Hashable] = set()
        self._changed = asyncio.Event()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="inference")

    def join(self, client: Hashable) -> None:
        """A client is there, and may be waited for."""
        self._clients.add(client)

    def leave(self, client: Hashable) -> None:
        """A client is gone, and what it asked last is not computed."""
        self._clients.discard(client)
        if (job := self._waiting.pop(client, None)) is not None:
            job.result.cancel()
        self._changed.set()

    def offer(self, client: Hashable, request: Request) -> asyncio.Future[Answer]:
        """The place where the answer will be; the client's older waiting request gives way."""
        job = Job(request, asyncio.get_running_loop().create_future())
        job.result.add_done_callback(_noticed)
        if (older := self._waiting.get(client)) is not None and not older.result.done():
            older.result.set_exception(SupersededError())
        self._waiting[client] = job
        self._changed.set()
        return job.result

    async def run(self) -> None:
        """Compute until cancelled."""
        try:
            while True:
                await self._gather()
                await self._compute_next()
        finally:
            self._worker.shutdown(wait=False, cancel_futures=True)

    async def _gather(self) -> None:
        """Wait for a request, and then a little for others."""
        while not self._waiting:
            await self._next_change(None)
        deadline = next(iter(self._waiting.values())).arrived + self._max_wait_s
        while self._waiting and not self._full() and (left := deadline - time.perf_counter()) > 0:
            await self._next_change(left)

    async def _next_change(self, timeout_s: float | None) -> None:
        self._changed.clear()
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            pass

    def _full(self) -> bool:
        everybody = len(self._waiting) >= len(self._clients)
        return everybody or sum(job.request.rows for job in self._waiting.values()) >= self._max_rows

    async def _compute_next(self) -> None:
        if not (jobs := self._take()):
            return
        start = time.perf_counter()
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._worker, self._compute, [job.request for job in jobs])
        except Exception as error:  # A bug in a backend: every one of them hears of it, and the server goes on.
            found = [error] * len(jobs)
        self._hand_out(jobs, found, start, time.perf_counter() - start)

    def _take(self) -> list[Job]:
        """The next ones in turn that may be computed together."""
        taken: list[Job] = []
        rows = 0
        for client, job in list(self._waiting.items()):
            fits = not taken or (
                job.request.kind == taken[0].request.kind and rows + job.request.rows <= self._max_rows
            )
            if fits:
                taken.append(self._waiting.pop(client))
                rows += job.request.rows
        return taken

    def _hand_out(self, jobs: list[Job], found: Sequence[np.ndarray | Exception], start: float, seconds: float) -> None:
        rows = sum(job.request.rows for job in jobs)
        self._statistics.inference_s.add(seconds)
        self._statistics.rows.add(rows)
        for job, result in zip(jobs, found, strict=True):
            self._statistics.queue_s.add(start - job.arrived)
            if job.result.done():
                continue
            if isinstance(result, Exception):
                job.result.set_exception(result)
            else:
                job.result.set_result(Answer(result, start - job.arrived, seconds, rows))


def _noticed(result: asyncio.Future[Answer]) -> None:
    """An answer for a client that has gone is nothing that asyncio should complain about."""
    if not result.cancelled():
        result.exception()
