"""The protocol, with a client written from its description only, and with openpi's own where it is installed."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from robo_rlft.errors import BundleError
from robo_rlft.export.runtime import Controller
from robo_rlft.export.serving.backend import BundleBackend
from robo_rlft.export.serving.codec import pack, unpack
from robo_rlft.export.serving.options import ServeOptions
from robo_rlft.export.serving.server import OUTSTANDING, PolicyServer

from .conftest import MarkedBackend, marked, serving, until, url_of

Draw = Callable[[int], tuple[dict[str, np.ndarray], np.ndarray]]


class Minimal:
    """A client in a few lines, without any of our code: msgpack of arrays as openpi writes them."""

    def __init__(self, url: str, **headers: str) -> None:
        self.socket = connect(url, compression=None, max_size=None, additional_headers=headers, proxy=None).__enter__()
        self.metadata = self.receive()

    def receive(self) -> Any:
        data = self.socket.recv(timeout=10)
        return data if isinstance(data, str) else msgpack.unpackb(data, object_hook=self._array)

    def send(self, message: dict[str, Any]) -> None:
        self.socket.send(msgpack.packb(message, default=self._map))

    def infer(self, message: dict[str, Any]) -> Any:
        self.send(message)
        return self.receive()

    @staticmethod
    def _map(a: np.ndarray) -> dict[bytes, Any]:
        return {b"__ndarray__": True, b"data": a.tobytes(), b"dtype": a.dtype.str, b"shape": a.shape}

    @staticmethod
    def _array(found: dict[Any, Any]) -> Any:
        if b"__ndarray__" not in found:
            return found
        return np.ndarray(buffer=found[b"data"], dtype=np.dtype(found[b"dtype"]), shape=found[b"shape"])


@contextmanager
def minimal(server: PolicyServer, **headers: str) -> Iterator[Minimal]:
    client = Minimal(url_of(server), **headers)
    try:
        yield client
    finally:
        client.socket.close()


def test_an_independent_client_gets_the_controllers_actions(served: PolicyServer, exported: Path, inputs: Draw) -> None:
    observation, noise = inputs(1)
    expected = Controller(exported).act(observation, noise)[0]
    with minimal(served) as client:
        answer = client.infer({"observation/policy": observation["policy"][0], "noise": noise[0]})
        assert set(answer) == {"actions", "server_timing"}
        np.testing.assert_array_equal(answer["actions"], expected, strict=True)
        assert answer["server_timing"]["infer_ms"] > 0
        assert "prev_total_ms" in client.infer({"policy": observation["policy"][0]})["server_timing"]


def test_openpis_own_client_works_unchanged(served: PolicyServer, exported: Path, inputs: Draw) -> None:
    openpi = pytest.importorskip("openpi_client.websocket_client_policy", reason="needs openpi-client (numpy < 2)")
    observation, noise = inputs(1)
    client = openpi.WebsocketClientPolicy(*served.address)
    assert client.get_server_metadata()["action_horizon"] == 4
    answer = client.infer({"policy": observation["policy"][0], "noise": noise[0]})
    np.testing.assert_array_equal(answer["actions"], Controller(exported).act(observation, noise)[0])
    with pytest.raises(RuntimeError, match="Error in inference server:\nunknown input 'polcy'"):
        client.infer({"polcy": observation["policy"][0]})


def test_openpis_own_client_shows_its_token(exported: Path, inputs: Draw) -> None:
    openpi = pytest.importorskip("openpi_client.websocket_client_policy", reason="needs openpi-client (numpy < 2)")
    with serving(BundleBackend(exported), token="secret") as server:
        client = openpi.WebsocketClientPolicy(*server.address, api_key="secret")
        assert client.infer({"policy": inputs(1)[0]["policy"][0]})["actions"].shape == (4, 2)
        with pytest.raises(InvalidStatus, match="401"):
            openpi.WebsocketClientPolicy(*server.address, api_key="other")


def test_the_first_message_describes_the_policy(served: PolicyServer, exported: Path) -> None:
    with minimal(served) as client:
        said = client.metadata
    assert (said["env_id"], said["rate_hz"], said["action_horizon"], said["action_dim"]) == ("Toy", 50.0, 4, 2)
    assert said["execute"] == 3
    assert said["action_names"] == ["left", "right"]
    assert said["inputs"]["observation/policy"] == {"dtype": "float32", "shape": [2, 3], "optional": False}
    assert said["controller"] == (exported / "controller.yaml").read_bytes()


def test_many_rows_are_one_request(served: PolicyServer, exported: Path, inputs: Draw) -> None:
    observation, noise = inputs(5)
    with minimal(served) as client:
        answer = client.infer({"policy": observation["policy"], "noise": noise})
    np.testing.assert_array_equal(answer["actions"], Controller(exported).act(observation, noise))


def test_noise_is_drawn_from_the_seed_of_the_connection(exported: Path, inputs: Draw) -> None:
    state = {"policy": inputs(1)[0]["policy"][0]}
    with serving(BundleBackend(exported), seed=5) as server:
        runs = []
        for _ in range(2):
            with minimal(server) as client:
                runs.append([client.infer(state)["actions"] for _ in range(3)])
    np.testing.assert_array_equal(runs[0], runs[1])
    assert np.abs(runs[0][0] - runs[0][1]).max() > 1e-3
    rng = np.random.default_rng(5)
    noise = rng.standard_normal((1, 4, 2), dtype=np.float32)
    expected = Controller(exported).act({"policy": state["policy"][None]}, noise)[0]
    np.testing.assert_array_equal(runs[0][0], expected)


def test_without_a_seed_connections_draw_different_noise(served: PolicyServer, inputs: Draw) -> None:
    state, answers = {"policy": inputs(1)[0]["policy"][0]}, []
    for _ in range(2):
        with minimal(served) as client:
            answers.append(client.infer(state)["actions"])
    assert np.abs(answers[0] - answers[1]).max() > 1e-3


def test_a_refusal_is_text_and_a_close_for_clients_of_openpi(served: PolicyServer) -> None:
    with minimal(served) as client:
        said = client.infer({"policy": np.full((2, 3), np.nan, np.float32)})
        assert said == "'observation/policy' row 0: entry 'x' is nan; the controller acts on finite numbers only"
        with pytest.raises(ConnectionClosed) as closed:
            client.receive()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1007


def test_a_client_that_numbers_its_requests_goes_on_after_a_refusal(served: PolicyServer) -> None:
    with minimal(served) as client:
        said = client.infer({"polcy": np.zeros((2, 3)), "request": 4})
        assert (said["request"], said["kind"]) == (4, "SpecError")
        assert said["error"].startswith("unknown input 'polcy'")
        answer = client.infer({"policy": np.zeros((2, 3)), "request": 5, "stamp_ns": 9})
        assert (answer["request"], answer["stamp_ns"], answer["actions"].shape) == (5, 9, (4, 2))


@pytest.mark.parametrize(
    "data",
    ["text", b"", b"\xc1", b"\x93\x01\x02\x03", b"\x81\xa6policy", pack({"policy": np.zeros(3)}), b"\x00" * 1000],
)
def test_malformed_messages_get_one_sentence_and_a_close(served: PolicyServer, data: str | bytes) -> None:
    with minimal(served) as client:
        client.socket.send(data)
        said = client.receive()
        assert isinstance(said, str)
        assert len(said.splitlines()) == 1
        assert "Traceback" not in said
        with pytest.raises(ConnectionClosed):
            client.receive()
    _alive(served)


@settings(max_examples=60, deadline=None)
@given(
    data=st.binary(max_size=120)
    | st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**63 - 1)
        | st.floats()
        | st.text(max_size=5)
        | st.binary(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["policy", "observation", "noise", "request", "stage", "stamp_ns", "__ndarray__", "shape"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    ).map(msgpack.packb)
)
def test_nothing_that_is_sent_harms_the_server(served: PolicyServer, data: bytes) -> None:
    with minimal(served) as client:
        client.socket.send(data)
        said = client.receive()
        assert isinstance(said, str) or "error" in said or "actions" in said
    _alive(served)


@pytest.mark.parametrize("hello", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"\x00" * 4000, b""])
def test_other_protocols_on_the_port_harm_nothing(served: PolicyServer, hello: bytes) -> None:
    with socket.create_connection(served.address, 5) as raw:
        raw.sendall(hello)
        raw.settimeout(0.2)
        with contextlib.suppress(TimeoutError, ConnectionError):
            raw.recv(1000)
    _alive(served)


def test_a_message_that_is_too_long_is_refused_with_its_code(exported: Path) -> None:
    with serving(BundleBackend(exported), max_message=10_000) as server:
        with minimal(server) as client:
            client.socket.send(bytes(10_001))
            with pytest.raises(ConnectionClosed) as closed:
                client.receive()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009
        _alive(server)
        until(lambda: server.statistics.closed["oversize"] == 1)


@pytest.mark.parametrize(
    "header", ["", "Api-Key other", "Bearer secret2", "Basic secret", "secret", "Api-Key", "Api-Key é"]
)
def test_a_wrong_token_stays_outside(exported: Path, header: str) -> None:
    with serving(BundleBackend(exported), token="secret") as server:
        with pytest.raises((InvalidStatus, UnicodeEncodeError)) as refused:
            Minimal(url_of(server), **({"Authorization": header} if header else {}))
        if isinstance(refused.value, InvalidStatus):
            assert refused.value.response.status_code == 401
            until(lambda: server.statistics.rejected["token"] == 1)


def test_the_right_token_comes_in_and_guards_the_metrics(exported: Path) -> None:
    with serving(BundleBackend(exported), token="secret") as server:
        for scheme in ("Api-Key", "Bearer", "bearer"):
            with minimal(server, Authorization=f"{scheme} secret") as client:
                assert client.infer({"policy": np.zeros((2, 3))})["actions"].shape == (4, 2)
        assert _get(server, "/healthz") == (200, "OK\n")
        assert _get(server, "/metrics")[0] == 401
        status, text = _get(server, "/metrics", Authorization="Bearer secret")
        assert status == 200
        assert 'requests_total{outcome="answered"} 3' in text


def test_a_full_server_says_so(exported: Path) -> None:
    with serving(BundleBackend(exported), max_clients=1) as server, minimal(server):
        with pytest.raises(InvalidStatus) as refused:
            Minimal(url_of(server))
        assert refused.value.response.status_code == 503


def test_metrics_are_prometheus_text(exported: Path) -> None:
    with serving(BundleBackend(exported)) as server:
        with minimal(server) as client:
            for _ in range(3):
                client.infer({"policy": np.zeros((2, 3))})
            text = _get(server, "/metrics")[1]
        sample = re.compile(r'^[a-z_]+(\{[a-z]+="[^"]*"\})? [0-9.e+-]+$')
        typed = re.compile(r"^# TYPE [a-z_]+ (counter|gauge|histogram)$")
        assert all(sample.match(line) or typed.match(line) for line in text.splitlines())
        assert "robo_rlft_serve_clients 1" in text
        assert "robo_rlft_serve_inference_seconds_count 3" in text
        assert 'robo_rlft_serve_inference_seconds_bucket{le="+Inf"} 3' in text


def test_of_a_slow_policy_the_newest_observation_wins(exported: Path) -> None:
    backend = MarkedBackend(exported, seconds=0.15)
    with serving(backend) as server, minimal(server) as client:
        for number in range(6):
            client.send({**marked(number), "request": number})
            if number == 0:
                time.sleep(0.05)
        answers = [client.receive() for _ in range(6)]
        assert [a["request"] for a in answers] == list(range(6))
        assert [a.get("superseded", False) for a in answers] == [False, True, True, True, True, False]
        assert backend.batches == [[0.0], [5.0]]
        assert answers[5]["actions"][0, 0] == 5.0
        until(lambda: server.statistics.requests == {"answered": 2, "superseded": 4})


def test_a_client_that_floods_is_held_back_and_keeps_nobody_waiting(exported: Path) -> None:
    """It sends without reading: what the server holds of it is bounded, and another client is served meanwhile."""
    with serving(MarkedBackend(exported, seconds=0.01)) as server, minimal(server) as other:
        flood, sent = Minimal(url_of(server)), [0]
        message = pack({**marked(1.0), "noise": np.zeros((4, 2)), "request": 1})

        def pour() -> None:
            with contextlib.suppress(ConnectionClosed):
                while True:
                    flood.socket.send(message)
                    sent[0] += 1

        thread = threading.Thread(target=pour, daemon=True)
        thread.start()
        start, held = time.perf_counter(), []
        for mark in range(10, 30):
            assert other.infer(marked(mark))["actions"][0, 0] == mark
            held.append(max(session.outstanding for session in server.sessions))
        assert time.perf_counter() - start < 5.0
        assert 1 < max(held) <= OUTSTANDING
        assert server.statistics.bytes_in < len(message) * sent[0] / 2, "most of the flood waits in the network"
        _cut(flood.socket)
        thread.join(5)


def test_clients_that_wait_together_are_computed_together(exported: Path) -> None:
    backend = MarkedBackend(exported, seconds=0.1)
    with serving(backend, max_wait_s=0.5) as server:
        answers = _together(server, 4)
    assert answers == [0.0, 1.0, 2.0, 3.0]
    assert [len(batch) for batch in backend.batches] == [4]


def test_the_batch_is_bounded_and_clients_take_turns(exported: Path) -> None:
    backend = MarkedBackend(exported, seconds=0.02)
    with serving(backend, max_rows=2, max_wait_s=0.2) as server:
        assert _together(server, 4, rounds=5) == [0.0, 1.0, 2.0, 3.0]
    assert all(len(batch) <= 2 for batch in backend.batches)
    order = [mark for batch in backend.batches for mark in batch]
    assert {mark: order.count(mark) for mark in range(4)} == dict.fromkeys(range(4), 5)
    for first in range(0, 12, 4):
        assert len(set(order[first : first + 4])) == 4, "nobody has a second turn before everybody had a first"


def test_nobody_waits_for_others_when_all_have_asked(exported: Path) -> None:
    with serving(MarkedBackend(exported), max_wait_s=5.0) as server, minimal(server) as client:
        start = time.perf_counter()
        client.infer(marked(1.0))
        assert time.perf_counter() - start < 2.0


def test_one_clients_bad_value_reaches_no_other(exported: Path) -> None:
    with serving(BundleBackend(exported), max_wait_s=1.0) as server, minimal(server) as good, minimal(server) as bad:
        good.send({"policy": np.zeros((2, 3)), "request": 1})
        bad.send({"policy": np.full((2, 3), np.inf), "request": 1})
        assert good.receive()["actions"].shape == (4, 2)
        assert "entry 'x' is inf" in bad.receive()["error"]


def test_a_fault_of_the_policy_is_told_and_the_server_goes_on(exported: Path) -> None:
    class Faulty(MarkedBackend):
        def infer(self, *arguments: Any) -> np.ndarray:
            if len(self.batches) == 0:
                self.batches.append([])
                raise ZeroDivisionError("no divisor")
            if len(self.batches) == 1:
                self.batches.append([])
                raise BundleError("the policy returned an action that is not finite")
            return super().infer(*arguments)

    with serving(Faulty(exported)) as server:
        with minimal(server) as client:
            assert client.infer(marked(1.0)) == "the policy server failed: ZeroDivisionError: no divisor"
            with pytest.raises(ConnectionClosed) as closed:
                client.receive()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1011
        with minimal(server) as client:
            assert client.infer({**marked(1.0), "request": 1})["kind"] == "BundleError"
            assert client.infer({**marked(2.0), "request": 2})["actions"][0, 0] == 2.0
        until(lambda: server.statistics.requests == {"failed": 2, "answered": 1})


def test_pings_are_answered_while_the_policy_computes(exported: Path) -> None:
    with serving(MarkedBackend(exported, seconds=0.6)) as server, minimal(server) as client:
        client.send(marked(1.0))
        time.sleep(0.05)
        assert client.socket.ping().wait(0.3)
        assert _get(server, "/healthz")[0] == 200


def test_a_client_that_vanished_leaves_nothing(exported: Path) -> None:
    backend = MarkedBackend(exported, seconds=0.2)
    with serving(backend, max_wait_s=0.0) as server, minimal(server) as stays:
        gone = Minimal(url_of(server))
        stays.send(marked(1.0))
        time.sleep(0.05)
        gone.send(marked(2.0))
        time.sleep(0.05)
        _cut(gone.socket)
        assert stays.receive()["actions"][0, 0] == 1.0
        assert stays.infer(marked(3.0))["actions"][0, 0] == 3.0
        assert backend.batches == [[1.0], [3.0]], "what the vanished client asked is not computed"
        assert server.statistics.clients == 1
    until(lambda: server.statistics.requests["lost"] == 1)


def test_the_end_finishes_current_requests(exported: Path) -> None:
    with serving(MarkedBackend(exported, seconds=0.3), max_wait_s=0.0) as server:
        clients = [Minimal(url_of(server)) for _ in range(3)]
        for mark, client in enumerate(clients):
            client.send(marked(mark))
        time.sleep(0.1)
        server.stop()
        for mark, client in enumerate(clients):
            assert client.receive()["actions"][0, 0] == mark
            with pytest.raises(ConnectionClosed) as closed:
                client.receive()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1001


def test_an_inference_that_never_ends_does_not_hold_the_end_for_ever(exported: Path) -> None:
    server = PolicyServer(MarkedBackend(exported, seconds=1.5), ServeOptions(port=0, grace_s=0.2))
    ready, finished = threading.Event(), []
    thread = threading.Thread(target=lambda: finished.append(asyncio.run(server.run(ready.set))))
    thread.start()
    assert ready.wait(5)
    client = Minimal(url_of(server))
    client.send(marked(1.0))
    time.sleep(0.1)
    start = time.perf_counter()
    server.stop()
    thread.join(10)
    assert finished == [False]
    assert time.perf_counter() - start < 1.2
    client.socket.close()


def _together(server: PolicyServer, count: int, rounds: int = 1) -> list[float]:
    """The last mark that each of several clients got back, asking at the same time."""
    clients = [Minimal(url_of(server)) for _ in range(count)]
    got: dict[int, float] = {}

    def ask(index: int) -> None:
        for _ in range(rounds):
            got[index] = float(clients[index].infer(marked(index))["actions"][0, 0])

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    for client in clients:
        client.socket.close()
    return [got[i] for i in range(count)]


def _cut(connection: ClientConnection) -> None:
    """As a killed process or a pulled plug: the socket goes without a word of the protocol."""
    connection.socket.shutdown(socket.SHUT_RDWR)


def _alive(server: PolicyServer) -> None:
    assert _get(server, "/healthz") == (200, "OK\n")


def _get(server: PolicyServer, path: str, **headers: str) -> tuple[int, str]:
    host, port = server.address
    request = urllib.request.Request(f"http://{host}:{port}{path}", headers=headers)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_the_codec_reads_what_the_minimal_client_writes() -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    read = unpack(msgpack.packb({"x": values}, default=Minimal._map))
    np.testing.assert_array_equal(read["x"], values, strict=True)
