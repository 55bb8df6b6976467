"""`robo-rlft serve` as its user meets it, and the simulator that asks it."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robo_rlft.cli import main
from robo_rlft.envs import make
from robo_rlft.errors import ConfigError, SpecError
from robo_rlft.export.bundle import write_bundle
from robo_rlft.export.run import for_bundle, run
from robo_rlft.export.serving.backend import BundleBackend
from robo_rlft.export.serving.client import RemotePolicy, connect_to
from robo_rlft.export.serving.options import ServeOptions, from_flags, parse_map, read_token
from robo_rlft.export.serving.torch_backend import TorchBackend
from robo_rlft.export.serving.torch_backend import exported as exported_run
from robo_rlft.policies import NetworkConfig, Policy, PolicyConfig
from robo_rlft.training.config import Config
from robo_rlft.training.policies import policy_meta
from robo_rlft.training.run import Run

from .conftest import serving, url_of
from .processes import start_server
from .tls import self_made_certificate


def _config() -> Config:
    config = Config()
    config.evaluate.episodes, config.evaluate.num_envs, config.env.threads = 5, 3, 1
    return config


@pytest.fixture(scope="module")
def hopper_policy() -> Policy:
    env = make("Hopper", 1)
    torch.manual_seed(0)
    config = PolicyConfig(network=NetworkConfig(hidden=[32]), obs_horizon=2, chunk=4, execute=3)
    made = Policy(config, env.robot).eval()
    env.close()
    return made


@pytest.fixture(scope="module")
def finished_run(hopper_policy: Policy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "hopper"
    with Run.open(folder, Config(), verb="pretrain") as opened:
        meta = policy_meta(hopper_policy, algorithm="bc", counters={"updates": 7.0}, ema=True)
        opened.checkpoints.save("last", {"policy": hopper_policy.state_dict()}, {}, meta)
    return folder


@pytest.fixture(scope="module")
def hopper(hopper_policy: Policy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(hopper_policy, tmp_path_factory.mktemp("bundles") / "hopper", source={"run": "hopper"})


@pytest.fixture(scope="module")
def local(hopper: Path) -> dict[str, Any]:
    """What the bundle does in a process of its own."""
    return run(hopper, for_bundle(_config(), hopper), calls=5)


def test_a_served_policy_plays_the_very_episodes_of_the_local_one(hopper: Path, local: dict[str, Any]) -> None:
    with serving(BundleBackend(hopper), seed=99) as server:
        asked = run(hopper, for_bundle(_config(), hopper), calls=5, policy=connect_to(hopper, url_of(server)))
        assert server.statistics.requests["answered"] > 10
        assert server.statistics.clients == 0
    assert asked["per_seed"] == local["per_seed"]
    assert len({row["return"] for row in asked["per_seed"]}) == 5
    assert {row["call"] for row in asked["latency"]} == {"inference", "round trip to the server"}
    assert {row["call"] for row in local["latency"]} == {"inference", "round trip between processes"}


def test_the_verb_asks_the_server_that_it_is_told(
    hopper: Path, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n")
    token.chmod(0o600)
    certificate, key = self_made_certificate(tmp_path)
    process, url = start_server(
        hopper, "--token-file", str(token), "--certificate", str(certificate), "--key", str(key)
    )
    few = ["evaluate.episodes=2", "evaluate.num_envs=2", "--server", url]
    secrets = ["--token-file", str(token), "--certificate", str(certificate)]
    assert main(["run", str(hopper), *few, *secrets]) == 0
    assert "round trip to the server" in capsys.readouterr().out.replace("\n", " ")
    assert main(["run", str(hopper), *few, *secrets[2:]]) == 2
    assert "does not accept this token" in capsys.readouterr().err
    assert main(["run", str(exported), *few, *secrets]) == 2
    assert "serves another bundle than" in capsys.readouterr().err
    process.terminate()
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert "answered" in out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_a_table(exported: Path, number: signal.Signals) -> None:
    process, url = start_server(exported)
    assert process.stdout is not None
    assert "golden check passed" in process.stdout.readline()
    described = process.stdout.readline().strip()
    assert described == "clients send observation/policy float32 [2, 3], noise float32 [4, 2] (optional)"
    with RemotePolicy(url) as policy:
        policy.act({"policy": np.zeros((1, 2, 3))})
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")
    assert "1 answered" in out
    assert "p99.9" in out


def test_a_second_server_on_the_port_is_one_clear_error(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(BundleBackend(exported)) as server:
        assert main(["serve", str(exported), "--port", str(server.address[1])]) == 2
    said = capsys.readouterr().err
    assert said == (
        f"error: port {server.address[1]} of 127.0.0.1 is in use by another program: stop it, or choose --port PORT\n"
    )


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--port", "many"], "--port must be a number from 0 to 65535, got 'many'"),
        (["--port", "70000"], "--port must be a number from 0 to 65535"),
        (["--max-wait-ms", "-1"], "--max-wait-ms must be a number from 0 to 10000"),
        (["--threads", "0"], "--threads must be a number from 1"),
        (["--device", "cuda"], "is a bundle, which ONNX Runtime computes on the CPU"),
        (["--map", "state"], "expected CLIENT_KEY=POLICY_KEY"),
        (["--map", "state=nothing"], "unknown input of the policy 'nothing'"),
        (["--certificate", "cert.pem"], "belong together"),
        (["--certificate", "no.pem", "--key", "no.pem"], "no.pem does not exist"),
        (["--token-file", "no-such-file"], "token file no-such-file cannot be read"),
        (["--host", "203.0.113.7"], "is no address of this machine"),
        (["--hots", "0.0.0.0"], "unknown flag '--hots': did you mean --host"),
        (["env.id=Hopper"], "takes flags, no settings, got 'env.id=Hopper'"),
    ],
)
def test_what_cannot_be_served_is_one_sentence(
    exported: Path, flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(exported), *flags]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1


def test_a_folder_that_is_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(tmp_path / "nothing")]) == 2
    assert "is no controller bundle" in capsys.readouterr().err
    assert main(["serve", str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_token_must_be_kept_from_others(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(" 0123abcd\n")
    file.chmod(0o644)
    with pytest.raises(ConfigError, match=r"others may read the token file .*chmod 600"):
        read_token(file)
    file.chmod(0o600)
    assert read_token(file) == "0123abcd"
    for bad in ("", "\n", "two\nlines", "é"):
        file.write_text(bad)
        with pytest.raises(ConfigError, match="one line of printable ASCII"):
            read_token(file)


def test_flags_become_options(tmp_path: Path) -> None:
    flags = {"--port": "9", "--max-message-mb": "2", "--max-wait-ms": "1.5", "--ignore": "a,b", "--map": "x=y/z,u=v"}
    options = from_flags(flags)
    assert (options.port, options.max_message, options.max_wait_s) == (9, 2 << 20, 0.0015)
    assert options.ignored == ("a", "b")
    assert options.renamed == parse_map("x=y/z,u=v") == {"x": "y/z", "u": "v"}
    assert from_flags({}) == ServeOptions()


def test_an_open_door_is_pointed_out() -> None:
    assert ServeOptions().warnings() == []
    open_door, readable = ServeOptions(host="0.0.0.0").warnings()
    assert "--token-file" in open_door
    assert "--certificate" in readable


@pytest.fixture
def started() -> Iterator[list[Any]]:
    yield (processes := [])
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_a_run_is_exported_and_served(finished_run: Path, started: list[Any]) -> None:
    process, url = start_server(finished_run)
    started.append(process)
    with connect_to(finished_run / "bundle", url) as policy:
        assert policy.act({"policy": np.zeros((1, 2, 11))}).shape == (1, 4, 3)


@pytest.mark.slow
def test_a_run_may_be_computed_by_torch(finished_run: Path) -> None:
    """As a GPU would be used: the same actions, and a refusal of what is not finite."""
    config, bundle = exported_run(finished_run)
    backend, rng = TorchBackend(config, bundle, "cpu"), np.random.default_rng(0)
    assert backend.golden_error <= 1e-5
    observation = {"policy": rng.normal(size=(4, 2, 11)).astype(np.float32)}
    noise = rng.standard_normal((4, 4, 3), dtype=np.float32)
    expected = BundleBackend(bundle).controller.act(observation, noise)
    with serving(backend) as server, connect_to(bundle, url_of(server)) as remote:
        np.testing.assert_allclose(remote.act(observation, noise), expected, atol=1e-5)
        with pytest.raises(SpecError, match="not finite"):
            remote.act({"policy": np.full((1, 2, 11), np.inf)}, noise[:1])
    with pytest.raises(ConfigError, match=r"--device nowhere: torch .* has no such device here"):
        TorchBackend(config, bundle, "nowhere")


def test_a_second_signal_ends_at_once(exported: Path) -> None:
    """Also while a client holds the end back, here one that does not answer the closing."""
    process, url = start_server(exported)
    host, _, port = url.removeprefix("ws://").partition(":")
    with socket.create_connection((host, int(port))) as silent:
        silent.sendall(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        silent.recv(100)
        process.terminate()
        time.sleep(0.5)
        assert process.poll() is None, "it waits for the client's closing"
        process.terminate()
        assert process.wait(5) == 128 + signal.SIGTERM
        process.communicate()


def test_ctrl_c_in_the_middle_of_many_clients(exported: Path) -> None:
    process, url = start_server(exported)
    ends: list[str] = []

    def ask() -> None:
        with RemotePolicy(url, reconnect_s=0) as policy:
            try:
                while True:
                    policy.act({"policy": np.zeros((1, 2, 3))})
            except Exception as error:
                ends.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    process.terminate()
    out, err = process.communicate(timeout=20)
    for thread in threads:
        thread.join(10)
    assert (process.returncode, err) == (0, "")
    assert "answered" in out
    assert len(ends) == 4
    assert all("was ended: the server shuts down" in end for end in ends)
