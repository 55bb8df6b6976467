"""The robot's side of a policy server: one question, one answer, and one sentence for everything that can go wrong.

Needs numpy, PyYAML, websockets and msgpack; neither torch nor ONNX Runtime.
"""

from __future__ import annotations

import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from robo_rlft.errors import (
    BundleError,
    ConfigError,
    MissingExtraError,
    ServerAwayError,
    ServerError,
    SpecError,
)
from robo_rlft.export.manifest import (
    BASE_ACTION,
    DELAY,
    GUIDANCE,
    MANIFEST_FILE,
    NO_PREFIX,
    OBSERVATION_PREFIX,
    PHASE,
    PREFIX,
    RESIDUAL,
    Manifest,
    read_manifest,
)
from robo_rlft.export.serving.codec import CodecError, pack, unpack
from robo_rlft.export.serving.contract import (
    ACTIONS,
    ERROR,
    KIND,
    NOISE,
    REQUEST,
    STAGE,
    SUPERSEDED,
    TIMING,
)
from robo_rlft.export.serving.options import read_token

try:
    from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
    from websockets.sync.client import ClientConnection, connect
except ImportError:
    raise MissingExtraError("websockets", "serve", "the client of a policy server") from None

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 1.0
"""Pauses between tries to connect: doubled from the first to the longest."""
MAX_ANSWER = 64 << 20
"""Longest answer in bytes."""
PING_S = 20.0
"""A server that is silent for so long is asked whether it is there."""


class RemotePolicy:
    """A policy that another machine computes, as `PolicyProcess` is one of another process. A context manager.

    A connection that breaks is made anew, and the question asked again, which gives the same answer: the noise is part
    of it. One thread asks at a time; others wait.

    Args:
        url: `ws://HOST:PORT`, or `wss://HOST:PORT` for TLS.
        token: the server's token; empty for none.
        certificate: of the server or of who signed it, PEM; None trusts whom the system trusts.
        timeout_s: longest wait for one answer, in seconds, new connections included.
        reconnect_s: longest time that a question goes on trying to connect again, in seconds; 0 gives up at once.
        connect_s: longest wait for the first connection, in seconds.

    Attributes:
        manifest: what the served bundle says about itself.
        description: its `controller.yaml`.
        metadata: the server's first message.
        golden_error: what the server found when it compared its golden actions.
        timing: what the server said about the last answer: `infer_ms`, `queue_ms`, `batch_rows` ...
        inference_s: seconds the last answer's inference took on the server.
        reconnected: how often the connection was made anew.

    Raises:
        ServerAwayError: nobody answers there at present.
        ServerError: the server refuses this client, or is none of ours.
        ConfigError: the address or the certificate cannot be used.
    """

    reached = "to the server"

    def __init__(
        self,
        url: str,
        token: str = "",
        *,
        certificate: Path | str | None = None,
        timeout_s: float = 30.0,
        reconnect_s: float = 5.0,
        connect_s: float = 10.0,
    ) -> None:
        self.url, self.timeout_s, self.reconnect_s, self.connect_s = url, timeout_s, reconnect_s, connect_s
        self.modules: list[str] = []
        self.timing: dict[str, float] = {}
        self.inference_s, self.reconnected = 0.0, 0
        self._headers = {"Authorization": f"Api-Key {token}"} if token else {}
        self._tls = _tls(url, certificate)
        self._turn, self._number, self._closed = threading.Lock(), 0, False
        self._connection: ClientConnection | None
        self._connection, self.metadata = self._connect(connect_s)
        self.description = _description(url, self.metadata)
        self.manifest = _manifest(url, self.description)
        self.golden_error = float(self.metadata.get("golden_error", np.nan))

    def act(
        self,
        observation: Mapping[str, np.ndarray],
        noise: np.ndarray | None = None,
        guidance: float | None = None,
        *,
        prefix: np.ndarray | None = None,
        delay: int = NO_PREFIX,
    ) -> np.ndarray:
        """As `Controller.act`, on the server.

        Args:
            observation: per key [N, obs_horizon, ...], the present one last.
            noise: [N, H, A]; None lets the server draw it.
            guidance: w of RLG, for bundles that have it.
            prefix: [N, P, A], actions of the previous chunk from the time of the observation on, for bundles that have
                this input.
            delay: how many of them will be executed before the new chunk is there; -1: there is no previous chunk.

        Returns:
            float32 [N, H, A].

        Raises:
            SpecError: the observation was refused.
            BundleError: the policy gave a value that is not finite.
            ServerAwayError: no answer came in time.
            ServerError: the server refuses this client now, or serves another policy since the connection was made
                anew.
        """
        others = {NOISE: noise, GUIDANCE: guidance, PREFIX: prefix, DELAY: None if delay == NO_PREFIX else delay}
        given = {name: value for name, value in others.items() if value is not None}
        return self._ask(observation, given, self.manifest.event)

    def correct(self, observation: Mapping[str, np.ndarray], base_action: np.ndarray, phase: np.ndarray) -> np.ndarray:
        """As `Controller.correct`, on the server; over a network only a simulator should wait for it.

        Raises:
            as `act`.
        """
        return self._ask(
            observation, {STAGE: RESIDUAL, BASE_ACTION: base_action, PHASE: phase}, self.manifest.event[1:]
        )

    def close(self) -> None:
        """End the connection."""
        self._closed = True
        self._drop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(
        self, observation: Mapping[str, np.ndarray], others: Mapping[str, Any], event: tuple[int, ...]
    ) -> np.ndarray:
        with self._turn:
            self._number += 1
            named = {OBSERVATION_PREFIX + key: value for key, value in observation.items()}
            message = {name: _sendable(name, value) for name, value in {**named, **others}.items()}
            answer = self._exchange(pack({**message, REQUEST: self._number}))
        actions: np.ndarray = answer[ACTIONS]
        if actions.shape[1:] != event or not np.isfinite(actions).all():
            raise BundleError(
                f"the policy server {self.url} returned actions of shape {list(actions.shape)} that are not all finite "
                f"numbers of shape [rows, {', '.join(map(str, event))}]"
            )
        self.timing = dict(answer[TIMING])
        self.inference_s = float(self.timing["infer_ms"]) / 1e3
        return actions.copy()  # What arrived is a view of the message, which nobody may change.

    def _exchange(self, question: bytes) -> dict[str, Any]:
        """Ask, and after a broken connection ask again until an answer comes or the time is over."""
        start = time.monotonic()
        pause = FIRST_PAUSE_S
        while True:
            left = start + self.timeout_s - time.monotonic()
            try:
                return self._checked(self._once(question, max(left, 0.0)))
            except ServerAwayError:
                self._drop()
                spent = time.monotonic() - start
                if self._closed or spent + pause > min(self.reconnect_s, self.timeout_s):
                    raise
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _once(self, question: bytes, timeout_s: float) -> dict[str, Any]:
        connection = self._connected(timeout_s)
        try:
            connection.send(question)
            return self._received(connection, timeout_s)
        except TimeoutError as error:
            raise ServerAwayError(
                f"the policy server {self.url} did not answer within {self.timeout_s:g} s: look at its load and the "
                "network, or allow more time"
            ) from error
        except ConnectionClosed as error:
            raise _closed(self.url, error) from error
        except OSError as error:
            raise ServerAwayError(f"the connection to the policy server {self.url} broke ({_cause(error)})") from error

    def _received(self, connection: ClientConnection, timeout_s: float) -> dict[str, Any]:
        data = connection.recv(timeout=timeout_s)
        if isinstance(data, str):
            raise ServerError(f"the policy server {self.url} says: {data.strip().splitlines()[-1]}")
        return _read(self.url, data)

    def _checked(self, answer: dict[str, Any]) -> dict[str, Any]:
        if ERROR in answer:
            raise _refusal(answer)
        if answer.get(REQUEST) != self._number or answer.get(SUPERSEDED):
            raise ServerError(f"the policy server {self.url} answered another question than the one it was asked")
        actions, timing = answer.get(ACTIONS), answer.get(TIMING)
        if not isinstance(actions, np.ndarray) or not isinstance(timing, dict) or "infer_ms" not in timing:
            raise ServerError(f"the answer of the policy server {self.url} holds no actions with their timing")
        return answer

    def _connected(self, timeout_s: float) -> ClientConnection:
        if self._closed:
            raise ServerError("the connection was closed: make another RemotePolicy")
        if self._connection is None:
            connection, metadata = self._connect(min(timeout_s, self.connect_s))
            if _description(self.url, metadata) != self.description:
                connection.close()
                raise ServerError(f"the policy server {self.url} serves another policy now: start the controller again")
            self._connection = connection
            self.reconnected += 1
        return self._connection

    def _connect(self, timeout_s: float) -> tuple[ClientConnection, dict[str, Any]]:
        """A connection, and the server's first message."""
        try:
            connection = connect(
                self.url,
                ssl=self._tls,
                additional_headers=self._headers,
                compression=None,
                proxy=None,
                max_size=MAX_ANSWER,
                open_timeout=max(timeout_s, 0.001),
                ping_interval=PING_S,
                ping_timeout=PING_S,
                close_timeout=1.0,
            ).__enter__()  # As a context it is not deprecated; `_drop` is its other end.
        except (OSError, EOFError, InvalidHandshake, InvalidURI) as error:
            raise _unreachable(self.url, error, timeout_s) from error
        try:
            return connection, self._greeting(connection, timeout_s)
        except BaseException:
            connection.close()
            raise

    def _greeting(self, connection: ClientConnection, timeout_s: float) -> dict[str, Any]:
        try:
            data = connection.recv(timeout=timeout_s)
        except TimeoutError as error:
            raise ServerAwayError(f"{self.url} did not say within {timeout_s:g} s what it serves") from error
        except ConnectionClosed as error:
            raise _closed(self.url, error) from error
        if isinstance(data, str):
            raise _no_server(self.url)
        return _read(self.url, data)

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def connect_to(bundle: Path, url: str, token_file: str = "", certificate: str = "") -> RemotePolicy:
    """The policy server at `url`, if it serves this bundle.

    Args:
        bundle: the bundle's folder.
        url: see `RemotePolicy`.
        token_file: file with the token; empty for none.
        certificate: PEM; empty trusts whom the system trusts.

    Raises:
        ServerError: it serves another policy, and whatever `RemotePolicy` raises.
        BundleError: the folder is no bundle.
    """
    read_manifest(bundle)
    policy = RemotePolicy(url, read_token(token_file) if token_file else "", certificate=certificate or None)
    if policy.description != (bundle / MANIFEST_FILE).read_bytes():
        policy.close()
        raise ServerError(f"the policy server {url} serves another bundle than {bundle}: name the one that it serves")
    return policy


def _sendable(name: str, value: Any) -> Any:
    """Doubles as float32, which the model takes anyway: half the bytes."""
    if isinstance(value, int | float | str):
        return value
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise SpecError(f"'{name}' must hold numbers, got {array.dtype}")
    if array.dtype == np.float64:
        with np.errstate(over="ignore"):
            return array.astype(np.float32)
    return array


def _tls(url: str, certificate: Path | str | None) -> ssl.SSLContext | None:
    if not url.startswith("wss:"):
        if certificate is not None:
            raise ConfigError(f"a certificate needs TLS: use wss:// in place of {url.partition(':')[0]}:// in {url}")
        return None
    try:
        return ssl.create_default_context(cafile=certificate)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{certificate} is no certificate in PEM ({_cause(error)})") from error


def _description(url: str, metadata: Mapping[str, Any]) -> bytes:
    description = metadata.get("controller")
    if not isinstance(description, bytes):
        raise _no_server(url)
    return description


def _manifest(url: str, description: bytes) -> Manifest:
    """What a bundle's folder would say, with the same checks."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / MANIFEST_FILE).write_bytes(description)
        try:
            return read_manifest(folder)
        except BundleError as error:
            raise ServerError(
                f"the policy server {url} describes a bundle that cannot be read here: {error}"
            ) from error


def _read(url: str, data: bytes) -> dict[str, Any]:
    try:
        return unpack(data)
    except CodecError as error:
        raise ServerError(f"the policy server {url} sent something unreadable: {error}") from error


def _refusal(answer: Mapping[str, Any]) -> SpecError | BundleError:
    """As `PolicyProcess`: the observation's fault, or the policy's."""
    theirs = answer.get(KIND) in (SpecError.__name__, CodecError.__name__)
    return (SpecError if theirs else BundleError)(str(answer[ERROR]))


def _closed(url: str, error: ConnectionClosed) -> ServerError:
    code = error.rcvd.code if error.rcvd else None
    if code == 1009:
        return ServerError(f"the message was too long for the policy server {url}: start it with --max-message-mb MB")
    why = {None: "broke", 1001: "was ended: the server shuts down"}.get(code, f"was ended with code {code}")
    return ServerAwayError(f"the connection to the policy server {url} {why}")


def _unreachable(url: str, error: Exception, timeout_s: float) -> ServerError | ConfigError:
    """Why there is no connection, one sentence per cause."""
    if isinstance(error, InvalidURI):
        return ConfigError(f"'{url}' is no address of a policy server: expected ws://HOST:PORT or wss://HOST:PORT")
    if isinstance(error, InvalidStatus):
        return _refused(url, error.response.status_code)
    if isinstance(error, ssl.SSLCertVerificationError):
        return ServerError(
            f"the certificate of the policy server {url} is not trusted ({error.verify_message}): name it, or who "
            "signed it, with --certificate FILE, and use the host's name that it was made for"
        )
    if isinstance(error, ssl.SSLError):
        return ServerError(
            f"{url} speaks no TLS that fits ({_cause(error)}): use ws:// if the server has no certificate"
        )
    if isinstance(error, TimeoutError):
        return ServerAwayError(f"{url} did not answer within {timeout_s:g} s: look at the address and the network")
    if isinstance(error, socket.gaierror):
        return ServerAwayError(f"the host of {url} is not known here ({_cause(error)}): look at its name")
    if isinstance(error, ConnectionRefusedError):
        return ServerAwayError(f"no policy server listens at {url}: start one there with robo-rlft serve BUNDLE")
    if isinstance(error, OSError) and not isinstance(error, ConnectionError):
        return ServerAwayError(f"{url} cannot be reached ({_cause(error)})")
    # A server that is just being restarted may look like this too: worth another try.
    return ServerAwayError(str(_no_server(url)))


def _refused(url: str, status: int) -> ServerError:
    if status == 401:
        return ServerError(f"the policy server {url} does not accept this token: give its own with --token-file FILE")
    if status == 503:
        return ServerAwayError(f"the policy server {url} takes no more clients at present")
    return _no_server(url)


def _no_server(url: str) -> ServerError:
    return ServerError(
        f"{url} is no policy server of robo_rlft: look at the port, and use wss:// if it has a certificate, else ws://"
    )


def _cause(error: Exception) -> str:
    return getattr(error, "strerror", None) or getattr(error, "reason", None) or str(error) or type(error).__name__


__all__ = ["RemotePolicy", "connect_to"]
