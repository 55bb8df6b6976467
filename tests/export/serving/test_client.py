from __future__ import annotations

import http.server
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.sync.server import serve as other_server

from robo_rlft.errors import BundleError, ConfigError, ServerAwayError, ServerError, SpecError
from robo_rlft.export.bundle import write_bundle
from robo_rlft.export.runtime import Controller
from robo_rlft.export.serving.backend import BundleBackend
from robo_rlft.export.serving.client import RemotePolicy, connect_to
from robo_rlft.export.serving.codec import pack
from robo_rlft.export.serving.options import server_tls
from robo_rlft.export.serving.server import PolicyServer
from robo_rlft.policies.guidance import GuidedPolicy

from ..conftest import make_policy, make_residual
from .conftest import MarkedBackend, marked, serving, url_of
from .processes import free_port, start_server
from .tls import self_made_certificate

Draw = Callable[[int], tuple[dict[str, np.ndarray], np.ndarray]]


@pytest.fixture(scope="module")
def guided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    policy = GuidedPolicy(make_policy(), make_policy(chain="euler"), 1.5)
    return write_bundle(policy, tmp_path_factory.mktemp("guided") / "toy", source={})


@pytest.fixture(scope="module")
def remote(served: PolicyServer) -> Iterator[RemotePolicy]:
    with RemotePolicy(url_of(served)) as policy:
        yield policy


def test_it_acts_as_the_controller_does(remote: RemotePolicy, exported: Path, inputs: Draw) -> None:
    controller = Controller(exported)
    for rows in (1, 7, 64):
        np.testing.assert_array_equal(remote.act(*inputs(rows)), controller.act(*inputs(rows)), strict=True)
        assert 0 < remote.inference_s < 5
    assert remote.manifest == controller.manifest
    assert remote.golden_error == controller.golden_error
    assert remote.timing["batch_rows"] == 64


def test_it_imports_neither_torch_nor_onnxruntime() -> None:
    heavy = "[m for m in ('torch', 'onnxruntime', 'mujoco') if m in sys.modules]"
    program = f"import sys, robo_rlft.export.serving.chunks; print({heavy})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_server_of_a_bundle_imports_no_torch(exported: Path) -> None:
    process, url = start_server(exported)
    with RemotePolicy(url) as policy:
        policy.act({"policy": np.zeros((1, 2, 3))})
        maps = Path(f"/proc/{process.pid}/maps").read_text()
    process.terminate()
    process.communicate(timeout=20)
    assert "libtorch" not in maps
    assert "onnxruntime" in maps


def test_a_refusal_reaches_the_client_and_it_goes_on(remote: RemotePolicy, inputs: Draw) -> None:
    observation, noise = inputs(2)
    with pytest.raises(SpecError, match="unknown input 'observation/other'"):
        remote.act({"other": observation["policy"]}, noise)
    with pytest.raises(SpecError, match="row 0: entry 'x' is nan"):
        remote.act({"policy": np.full((2, 2, 3), np.nan)}, noise)
    with pytest.raises(SpecError, match="must hold numbers"):
        remote.act({"policy": np.array([[["a"]]])}, noise)
    assert remote.act(observation, noise).shape == (2, 4, 2)
    assert remote.reconnected == 0


def test_guidance_reaches_the_bundle(guided: Path, inputs: Draw) -> None:
    controller, (observation, noise) = Controller(guided), inputs(3)
    with serving(BundleBackend(guided)) as server, RemotePolicy(url_of(server)) as policy:
        for weight in (None, 0.5, 2.0):
            got = policy.act(observation, noise, weight)
            np.testing.assert_array_equal(got, controller.act(observation, noise, weight))


def test_clients_with_different_guidance_share_an_inference(guided: Path, inputs: Draw) -> None:
    controller, (observation, noise), got = Controller(guided), inputs(1), dict[float, np.ndarray]()
    with serving(BundleBackend(guided), max_wait_s=2.0) as server:
        policies = {weight: RemotePolicy(url_of(server)) for weight in (0.0, 2.0)}

        def ask(weight: float) -> None:
            got[weight] = policies[weight].act(observation, noise, weight)

        threads = [threading.Thread(target=ask, args=(weight,)) for weight in policies]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert all(policy.timing["batch_rows"] == 2 for policy in policies.values())
        for policy in policies.values():
            policy.close()
    for weight, actions in got.items():
        np.testing.assert_allclose(actions, controller.act(observation, noise, weight), atol=1e-5)


def test_the_two_stages_of_a_residual_are_served(tmp_path: Path) -> None:
    bundle = write_bundle(make_residual(), tmp_path / "residual", source={})
    controller, rng = Controller(bundle), np.random.default_rng(0)
    observation = {"policy": rng.normal(size=(2, 2, 3)).astype(np.float32)}
    noise, phase = np.zeros((2, 4, 2), np.float32), np.full((2, 1), 1 / 3, np.float32)
    newest = {"policy": observation["policy"][:, -1]}
    with serving(BundleBackend(bundle)) as server, RemotePolicy(url_of(server)) as policy:
        chunk = policy.act(observation, noise)
        np.testing.assert_array_equal(chunk, controller.act(observation, noise))
        corrected = policy.correct(newest, chunk[:, 1], phase)
        np.testing.assert_array_equal(corrected, controller.correct(newest, chunk[:, 1], phase))


def test_after_a_kill_and_a_new_start_the_same_question_has_the_same_answer(exported: Path, inputs: Draw) -> None:
    port = free_port()
    first, url = start_server(exported, port=port)
    with RemotePolicy(url, reconnect_s=20.0) as policy:
        before = policy.act(*inputs(1))
        first.kill()
        first.communicate()
        second: list[subprocess.Popen[str]] = []
        starting = threading.Timer(0.3, lambda: second.append(start_server(exported, port=port)[0]))
        starting.start()
        np.testing.assert_array_equal(policy.act(*inputs(1)), before)
        assert policy.reconnected == 1
        starting.join()
        second[0].terminate()
        second[0].communicate(timeout=20)


def test_a_server_that_stays_away_is_an_error_within_the_time(exported: Path, inputs: Draw) -> None:
    process, url = start_server(exported)
    with RemotePolicy(url, reconnect_s=0.5) as policy:
        process.kill()
        process.communicate()
        start = time.monotonic()
        with pytest.raises(ServerAwayError, match=f"^no policy server listens at {url}: start one"):
            policy.act(*inputs(1))
        assert time.monotonic() - start < 2.0


def test_a_server_that_came_back_with_another_policy_is_refused(exported: Path, guided: Path, inputs: Draw) -> None:
    port = free_port()
    with serving(BundleBackend(exported), port=port) as server:
        policy = RemotePolicy(url_of(server))
        policy.act(*inputs(1))
    with (
        serving(BundleBackend(guided), port=port),
        pytest.raises(ServerError, match="serves another policy now") as raised,
    ):
        policy.act(*inputs(1))
    assert not isinstance(raised.value, ServerAwayError)
    policy.close()


def test_an_answer_that_is_late_is_an_error_and_the_next_is_right(exported: Path) -> None:
    backend = MarkedBackend(exported, seconds=0.5)
    with serving(backend) as server, RemotePolicy(url_of(server), timeout_s=0.2) as policy:
        with pytest.raises(ServerAwayError, match=r"did not answer within 0\.2 s: look at its load"):
            policy.act({"policy": marked(1.0)["policy"][None]})
        policy.timeout_s = 5.0
        assert policy.act({"policy": marked(2.0)["policy"][None]})[0, 0, 0] == 2.0


def test_closing_ends_it(served: PolicyServer, inputs: Draw) -> None:
    policy = RemotePolicy(url_of(served))
    policy.close()
    with pytest.raises(ServerError, match="connection was closed: make another RemotePolicy"):
        policy.act(*inputs(1))


def test_threads_ask_in_turn(exported: Path) -> None:
    wrong: list[float] = []
    with serving(MarkedBackend(exported)) as server, RemotePolicy(url_of(server)) as policy:

        def ask(mark: float) -> None:
            for _ in range(30):
                if policy.act({"policy": marked(mark)["policy"][None]})[0, 0, 0] != mark:
                    wrong.append(mark)

        threads = [threading.Thread(target=ask, args=(float(i),)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert wrong == []


def test_tls_with_the_servers_own_certificate(exported: Path, tmp_path: Path, inputs: Draw) -> None:
    certificate, key = self_made_certificate(tmp_path)
    expected = Controller(exported).act(*inputs(2))
    with serving(BundleBackend(exported), tls=server_tls(certificate, key), token="secret") as server:
        with RemotePolicy(url_of(server), "secret", certificate=certificate) as policy:
            np.testing.assert_array_equal(policy.act(*inputs(2)), expected)
        with pytest.raises(ServerError, match=r"is not trusted .*name it.*--certificate FILE"):
            RemotePolicy(url_of(server), "secret")
        with pytest.raises(ServerError, match=r"is no policy server of robo_rlft: .*use wss://"):
            RemotePolicy(url_of(server).replace("wss", "ws"), "secret")
        with pytest.raises(ServerError, match="does not accept this token"):
            RemotePolicy(url_of(server), "other", certificate=certificate)


def test_a_certificate_for_another_host_is_not_trusted(exported: Path, tmp_path: Path) -> None:
    certificate, key = self_made_certificate(tmp_path, host="robot.example")
    with (
        serving(BundleBackend(exported), tls=server_tls(certificate, key)) as server,
        pytest.raises(ServerError, match=r"not trusted \(Hostname mismatch"),
    ):
        RemotePolicy(url_of(server), certificate=certificate)


def test_tls_to_a_server_without_it(served: PolicyServer) -> None:
    with pytest.raises(ServerError, match=r"speaks no TLS that fits .*use ws://"):
        RemotePolicy(url_of(served).replace("ws:", "wss:"))


@pytest.mark.parametrize("url", ["http://localhost:8000", "localhost:8000", "ws://", ""])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(ConfigError, match=r"is no address of a policy server: expected ws://HOST:PORT"):
        RemotePolicy(url)


def test_a_certificate_needs_tls_and_must_be_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a certificate needs TLS: use wss://"):
        RemotePolicy("ws://localhost:1", certificate=tmp_path / "cert.pem")
    with pytest.raises(ConfigError, match="is no certificate in PEM"):
        RemotePolicy("wss://localhost:1", certificate=tmp_path / "cert.pem")


def test_nobody_listens() -> None:
    with pytest.raises(ServerAwayError, match=r"^no policy server listens at ws://localhost:\d+: start one there"):
        RemotePolicy(f"ws://localhost:{free_port()}")


def test_a_host_that_is_not_known() -> None:
    with pytest.raises(ServerAwayError, match=r"host of ws://nowhere\.invalid:1 is not known here"):
        RemotePolicy("ws://nowhere.invalid:1")


def test_a_wrong_token_and_none(exported: Path) -> None:
    with serving(BundleBackend(exported), token="secret") as server:
        for token in ("", "other"):
            with pytest.raises(ServerError, match="does not accept this token: give its own with --token-file FILE"):
                RemotePolicy(url_of(server), token)


def test_a_server_without_a_place(exported: Path) -> None:
    with (
        serving(BundleBackend(exported), max_clients=1) as server,
        RemotePolicy(url_of(server)),
        pytest.raises(ServerAwayError, match="takes no more clients at present"),
    ):
        RemotePolicy(url_of(server))


def test_a_message_that_is_too_long(exported: Path, inputs: Draw) -> None:
    with serving(BundleBackend(exported), max_message=10_000) as server, RemotePolicy(url_of(server)) as policy:
        with pytest.raises(ServerError, match=r"message was too long .*--max-message-mb") as raised:
            policy.act(*inputs(500))
        assert not isinstance(raised.value, ServerAwayError)


def test_a_web_server_is_no_policy_server() -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as web:
        web.RequestHandlerClass.log_message = lambda *_: None  # pyright: ignore[reportAttributeAccessIssue]
        thread = threading.Thread(target=web.handle_request)
        thread.start()
        with pytest.raises(ServerError, match="is no policy server of robo_rlft"):
            RemotePolicy(f"ws://localhost:{web.server_address[1]}")
        thread.join(5)


@contextmanager
def imposter(*said: Any) -> Iterator[str]:
    """A websocket server that says these things, one for each message, the first at once."""

    def talk(connection: Any) -> None:
        for data in said:
            connection.send(data)
            connection.recv()

    with other_server(talk, "localhost", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"ws://localhost:{server.socket.getsockname()[1]}"
        server.shutdown()
        thread.join(5)


@pytest.mark.parametrize("greeting", ["hello", pack({"action_horizon": 50}), pack({"controller": "text"})])
def test_a_server_of_another_project(greeting: Any) -> None:
    with imposter(greeting) as url, pytest.raises(ServerError, match="is no policy server of robo_rlft"):
        RemotePolicy(url)


def test_a_greeting_that_is_not_readable() -> None:
    with imposter(b"\xc1") as url, pytest.raises(ServerError, match=r"sent something unreadable: .*msgpack"):
        RemotePolicy(url)
    foreign = pack({"controller": b"format: other"})
    with imposter(foreign) as url, pytest.raises(ServerError, match=r"cannot be read here: .*has format 'other'"):
        RemotePolicy(url)


ACTIONS = np.zeros((1, 4, 2), np.float32)


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        ("Traceback\n  x\nValueError: y\n", ServerError, "says: ValueError: y"),
        (b"\x01", ServerError, "unreadable"),
        (pack({"request": 1}), ServerError, "no actions with their timing"),
        (pack({"request": 1, "actions": [1.0], "server_timing": {"infer_ms": 1.0}}), ServerError, "no actions"),
        (pack({"request": 2, "actions": ACTIONS, "server_timing": {"infer_ms": 1.0}}), ServerError, "another question"),
        (pack({"request": 1, "actions": ACTIONS}), ServerError, "no actions with their timing"),
        (
            pack({"request": 1, "actions": ACTIONS * np.nan, "server_timing": {"infer_ms": 1}}),
            BundleError,
            "not all finite",
        ),
        (
            pack({"request": 1, "actions": ACTIONS[:, :3], "server_timing": {"infer_ms": 1}}),
            BundleError,
            r"\[1, 3, 2\]",
        ),
    ],
)
def test_an_answer_that_cannot_be_used(exported: Path, answer: Any, kind: type[Exception], said: str) -> None:
    greeting = pack({"controller": (exported / "controller.yaml").read_bytes()})
    with imposter(greeting, answer) as url, RemotePolicy(url) as policy, pytest.raises(kind, match=said):
        policy.act({"policy": np.zeros((1, 2, 3))}, np.zeros((1, 4, 2)))


def test_the_bundle_must_be_the_one_that_is_served(
    served: PolicyServer, exported: Path, guided: Path, tmp_path: Path
) -> None:
    connect_to(exported, url_of(served)).close()
    connect_to(Path(shutil.copytree(exported, tmp_path / "copy")), url_of(served)).close()
    with pytest.raises(ServerError, match="serves another bundle than"):
        connect_to(guided, url_of(served))
    with pytest.raises(BundleError, match="is no controller bundle"):
        connect_to(tmp_path, url_of(served))
