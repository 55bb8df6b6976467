"""The policy server: websocket connections in, actions out, one inference thread behind them.

On connection the server sends a map that describes the policy. Then every binary message is a map with an observation,
and its answer a map with `actions` and `server_timing`, in the order of the requests: the protocol of openpi's
`WebsocketClientPolicy`. `GET /healthz` and `GET /metrics` answer on the same port.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hmac
import http
import logging
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from robo_rlft import __version__
from robo_rlft.errors import BundleError, ConfigError, MissingExtraError, UserError
from robo_rlft.export.serving.backend import Backend, compute
from robo_rlft.export.serving.batching import Answer, Batcher, SupersededError
from robo_rlft.export.serving.codec import CodecError, msgpack, pack, unpack
from robo_rlft.export.serving.contract import (
    ACTIONS,
    ERROR,
    KIND,
    NOISE,
    POLICY,
    REQUEST,
    STAMP,
    SUPERSEDED,
    TIMING,
    Contract,
    Request,
)
from robo_rlft.export.serving.options import ServeOptions
from robo_rlft.export.serving.statistics import Statistics

try:
    from websockets.asyncio.server import Server, ServerConnection, serve
    from websockets.exceptions import ConnectionClosed
    from websockets.http11 import Request as HttpRequest
    from websockets.http11 import Response
except ImportError:
    raise MissingExtraError("websockets", "serve", "the policy server") from None

PROTOCOL = 1
"""Version of what we add to openpi's protocol; told in the first message."""
OUTSTANDING = 16
"""Requests of one client that are read before their answers have left; then its messages stay in the network."""
MALFORMED, INTERNAL, GOING_AWAY = 1007, 1011, 1001
"""Close codes: a request that was refused, a fault of the server, and its end."""

_QUIET = logging.Logger("robo_rlft.serving", logging.CRITICAL + 1)
"""websockets would print a traceback for every client that talks something else; the statistics count them."""


class PolicyServer:
    """Serves one policy until it is stopped.

    Args:
        backend: computes the policy.
        options: how it is served.

    Attributes:
        statistics: what was counted so far.
        sessions: the connections of this moment.
        address: host and port it listens on, once `run` said it is ready.

    Raises:
        ConfigError: a key mapping leads nowhere.
        MissingExtraError: msgpack is not installed.
    """

    def __init__(self, backend: Backend, options: ServeOptions) -> None:
        msgpack()
        self.backend, self.options, self.statistics = backend, options, Statistics()
        self.contract = Contract(backend.manifest, options.renamed, options.ignored, backend.text)
        self.sessions: set[Session] = set()
        self.address = (options.host, options.port)
        self._greeting = pack(self._metadata())
        self._stopping: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def stop(self) -> None:
        """Finish the current requests and end; from any thread."""
        if self._loop is not None and self._stopping is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                self._loop.call_soon_threadsafe(self._stopping.set)

    async def run(self, ready: Callable[[], None] = lambda: None) -> bool:
        """Serve until `stop`; whether every request that was there then was finished.

        Args:
            ready: called once connections are taken.

        Raises:
            ConfigError: the address cannot be listened on.
        """
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        options, statistics = self.options, self.statistics
        batcher = Batcher(partial(compute, self.backend), statistics, options.max_rows, options.max_wait_s)
        computing = asyncio.create_task(batcher.run())
        try:
            server = await self._listen(batcher)
            self.address = server.sockets[0].getsockname()[:2]
            ready()
            await self._stopping.wait()
            server.close(close_connections=False)
            async with asyncio.timeout(options.grace_s):
                await server.wait_closed()
        except TimeoutError:
            return False
        else:
            return True
        finally:
            computing.cancel()
            await asyncio.gather(computing, return_exceptions=True)

    async def _listen(self, batcher: Batcher) -> Server:
        options = self.options
        try:
            return await serve(
                partial(self._connected, batcher),
                options.host,
                options.port,
                ssl=options.tls,
                compression=None,
                max_size=options.max_message,
                max_queue=2,
                ping_interval=options.ping_s,
                ping_timeout=options.ping_s,
                process_request=self._let_in,
                server_header=f"robo_rlft/{__version__}",
                logger=_QUIET,
            )
        except OSError as error:
            raise ConfigError(_cannot_listen(options, error)) from error

    def _let_in(self, connection: ServerConnection, request: HttpRequest) -> Response | None:
        """None goes on to the websocket; a response ends the connection."""
        path = request.path.partition("?")[0]
        if path == "/healthz":
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        if not self._authorised(request):
            self.statistics.rejected["token"] += 1
            return connection.respond(http.HTTPStatus.UNAUTHORIZED, "this policy server asks for its token\n")
        if path == "/metrics":
            response = connection.respond(http.HTTPStatus.OK, self.statistics.prometheus())
            del response.headers["Content-Type"]
            response.headers["Content-Type"] = "text/plain; version=0.0.4; charset=utf-8"
            return response
        if self.statistics.clients >= self.options.max_clients:
            self.statistics.rejected["full"] += 1
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "this policy server has no place left\n")
        return None

    def _authorised(self, request: HttpRequest) -> bool:
        if not self.options.token:
            return True
        scheme, _, token = ",".join(request.headers.get_all("Authorization")).partition(" ")
        known = scheme.lower() in ("api-key", "bearer")
        return (
            hmac.compare_digest(token.strip().encode(errors="surrogateescape"), self.options.token.encode()) and known
        )

    async def _connected(self, batcher: Batcher, connection: ServerConnection) -> None:
        assert self._stopping is not None
        session = Session(self, batcher, connection)
        self.sessions.add(session)
        self.statistics.clients = len(self.sessions)
        batcher.join(session)
        try:
            await connection.send(self._greeting)
            self.statistics.closed[await session.talk(self._stopping)] += 1
        except ConnectionClosed as error:
            self.statistics.closed[_how_closed(error)] += 1
        finally:
            batcher.leave(session)
            self.sessions.discard(session)
            self.statistics.clients = len(self.sessions)

    def _metadata(self) -> dict[str, Any]:
        manifest, stage = self.backend.manifest, self.backend.manifest.stage
        return {
            "server": f"robo_rlft {__version__}",
            "protocol": PROTOCOL,
            "env_id": manifest.robot.env_id,
            "rate_hz": manifest.robot.rate_hz,
            "action_names": list(manifest.robot.action.names),
            "action_horizon": stage.chunk,
            "action_dim": manifest.event[1],
            "execute": stage.execute,
            "inputs": self.contract.describe(),
            "controller": self.backend.description,
            "golden_error": self.backend.golden_error,
        }


class Session:
    """One connection: reads requests, and sends their answers in order.

    Args:
        server: whose connection it is.
        batcher: computes.
        connection: the client.
    """

    def __init__(self, server: PolicyServer, batcher: Batcher, connection: ServerConnection) -> None:
        self._server, self._batcher, self._connection = server, batcher, connection
        self._statistics, self._contract = server.statistics, server.contract
        self._answers: asyncio.Queue[_Pending | None] = asyncio.Queue(OUTSTANDING)
        self._rng = np.random.default_rng(server.options.seed)
        self._previous_s: float | None = None

    @property
    def outstanding(self) -> int:
        """Requests that were read and whose answers have not left, but for the one that is being sent."""
        return self._answers.qsize()

    async def talk(self, stopping: asyncio.Event) -> str:
        """Until the client leaves, is refused, or the server ends; says which."""
        reading = asyncio.create_task(self._read())
        sending = asyncio.create_task(self._send())
        ending = asyncio.create_task(stopping.wait())
        try:
            await asyncio.wait({reading, sending, ending}, return_when=asyncio.FIRST_COMPLETED)
            if stopping.is_set():
                await self._finish(reading, sending)
                await self._connection.close(GOING_AWAY, "the policy server ends")
            return sending.result() if sending.done() else reading.result()
        finally:
            for task in (reading, sending, ending):
                task.cancel()
            await asyncio.gather(reading, sending, ending, return_exceptions=True)
            self._abandon()

    async def _finish(self, reading: asyncio.Task[str], sending: asyncio.Task[str]) -> None:
        """Read no more, and send what was asked."""
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        ended = asyncio.create_task(self._answers.put(None))
        await asyncio.wait({sending})
        ended.cancel()

    async def _read(self) -> str:
        async for data in self._connection:
            self._statistics.bytes_in += len(data)
            await self._answers.put(self._accept(data))
        return "client"

    def _accept(self, data: str | bytes) -> _Pending:
        arrived = time.perf_counter()
        message: dict[str, Any] = {}
        try:
            if isinstance(data, str):
                raise CodecError("a request must be a binary message (msgpack), got text")
            message = unpack(data)
            request = self._with_noise(self._contract.read(message))
        except UserError as error:
            return _Pending(_number(message), arrived, error)
        return _Pending(dict(request.echo), arrived, self._batcher.offer(self, request))

    def _with_noise(self, request: Request) -> Request:
        if request.stage != POLICY or NOISE in request.arrays:
            return request
        shape = request.rows, *self._server.backend.manifest.event
        return request.with_noise(self._rng.standard_normal(shape, dtype=np.float32))

    async def _send(self) -> str:
        while (pending := await self._answers.get()) is not None:
            answer = await self._answer(pending)
            self._statistics.bytes_out += len(answer)
            await self._connection.send(answer)
            if isinstance(answer, str):
                code = MALFORMED if pending.refused else INTERNAL
                await self._connection.close(code, "see the message before")
                return "refused" if pending.refused else "failed"
            self._previous_s = time.perf_counter() - pending.arrived
        return "shutdown"

    async def _answer(self, pending: _Pending) -> bytes | str:
        try:
            outcome = pending.outcome
            found = await outcome if isinstance(outcome, asyncio.Future) else outcome
        except SupersededError:
            self._statistics.requests["superseded"] += 1
            return pack({**pending.echo, SUPERSEDED: True})
        except asyncio.CancelledError:
            self._statistics.requests["lost"] += 1
            raise
        except Exception as error:
            found = error
        if isinstance(found, Answer):
            self._statistics.requests["answered"] += 1
            return pack({ACTIONS: found.actions, **pending.echo, TIMING: self._timing(found)})
        pending.refused = isinstance(found, UserError) and not isinstance(found, BundleError)
        self._statistics.requests["refused" if pending.refused else "failed"] += 1
        return self._refusal(pending, found)

    def _refusal(self, pending: _Pending, error: Exception) -> bytes | str:
        """A client that numbers its requests gets a map and goes on; another one openpi's text, and is closed."""
        kind = type(error).__name__
        text = str(error) if isinstance(error, UserError) else f"the policy server failed: {kind}: {error}"
        return pack({**pending.echo, ERROR: text, KIND: kind}) if REQUEST in pending.echo else text

    def _timing(self, answer: Answer) -> dict[str, float]:
        times = {"infer_ms": answer.inference_s * 1e3, "queue_ms": answer.queue_s * 1e3, "batch_rows": answer.rows}
        return times if self._previous_s is None else {**times, "prev_total_ms": self._previous_s * 1e3}

    def _abandon(self) -> None:
        """Nobody waits for these answers any more."""
        while not self._answers.empty():
            pending = self._answers.get_nowait()
            if pending is not None and isinstance(pending.outcome, asyncio.Future):
                self._statistics.requests["lost"] += 1
                pending.outcome.cancel()


class _Pending:
    """A request whose answer has not left.

    Attributes:
        echo: what of the request goes back.
        arrived: when it came.
        outcome: the answer to be, or why there is none.
        refused: the fault was the client's.
    """

    def __init__(self, echo: dict[str, Any], arrived: float, outcome: asyncio.Future[Answer] | UserError) -> None:
        self.echo, self.arrived, self.outcome, self.refused = echo, arrived, outcome, False


def _number(message: dict[str, Any]) -> dict[str, Any]:
    """What can be told of a request that was not understood."""
    return {key: message[key] for key in (REQUEST, STAMP) if isinstance(message.get(key), int)}


def _how_closed(error: ConnectionClosed) -> str:
    code = error.rcvd.code if error.rcvd else error.sent.code if error.sent else 1006
    return {1000: "client", 1001: "client", 1006: "lost", 1009: "oversize"}.get(code, str(int(code)))


def _cannot_listen(options: ServeOptions, error: OSError) -> str:
    where = f"{options.host}:{options.port}"
    if error.errno == errno.EADDRINUSE:
        return f"port {options.port} of {options.host} is in use by another program: stop it, or choose --port PORT"
    if error.errno == errno.EACCES:
        return f"this user may not listen on {where}: choose a port above 1023 with --port PORT"
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"{options.host} is no address of this machine: --host 0.0.0.0 listens on all of them"
    return f"the policy server cannot listen on {where}: {error.strerror or error}"
