"""Round trips of the policy server on this machine: `robo-rlft bench serve`.

Servers run in processes of their own and take turns; a client is a thread that asks again as soon as it has its answer.
`state` is a flow policy of a few numbers, computed by ONNX Runtime, beside that inference alone. `images` sends two
pictures of 224 x 224 to a policy that costs nothing, which leaves the way there and back. The peer is the server of the
package openpi-server, where it is installed (`pip install --no-deps openpi-server openpi-client`), around the same
policy. On a machine with other work look at the processor time of the server per answer: it depends on that least.
"""

from __future__ import annotations

import asyncio
import importlib.util
import multiprocessing
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from websockets.sync.client import ClientConnection, connect

from robo_rlft.export.latency import Latency
from robo_rlft.export.manifest import MANIFEST_FILE, read_manifest
from robo_rlft.export.runtime import Controller
from robo_rlft.export.serving.backend import Backend, BundleBackend
from robo_rlft.export.serving.codec import pack, unpack
from robo_rlft.export.serving.contract import ACTIONS, NOISE
from robo_rlft.export.serving.options import ServeOptions
from robo_rlft.export.serving.server import PolicyServer
from robo_rlft.spec import ArraySpec, RobotSpec
from robo_rlft.training.bench.rows import BenchRow, print_table, write_json

CLIENTS = (1, 4, 16)
PEER = "openpi"
CAMERAS = ("image/base", "image/wrist")
ROUNDS = 5
"""Turns of each server; ratios are medians of those within each round."""
WARM_UP = 20
"""Inferences before the measurement."""
_ROBOT = RobotSpec("bench", {"policy": ArraySpec((32,))}, ArraySpec((7,)), rate_hz=50.0, max_episode_steps=1)

Host = Callable[..., None]
"""A server as the main function of a process: (connection to say its port through, case, bundle, ...)."""


@dataclass(frozen=True)
class Case:
    """What is sent.

    Attributes:
        name: `state` or `images`.
        message: one request.
    """

    name: str
    message: Mapping[str, np.ndarray]


class FreePolicy:
    """A policy with two cameras that costs nothing: zeros, whatever it sees."""

    text: tuple[str, ...] = ()
    golden_error = 0.0

    def __init__(self, bundle: Path) -> None:
        manifest = read_manifest(bundle)
        cameras = {key: ArraySpec((224, 224, 3), "uint8") for key in CAMERAS}
        robot = replace(manifest.robot, observation={**manifest.robot.observation, **cameras})
        self.manifest = replace(
            manifest, robot=robot, stage=replace(manifest.stage, observation=tuple(robot.observation))
        )
        self.description = (bundle / MANIFEST_FILE).read_bytes()

    def infer(self, stage: str, arrays: Mapping[str, np.ndarray], text: Mapping[str, str]) -> np.ndarray:
        """See `Backend.infer`."""
        return np.zeros_like(arrays[NOISE])


def run(
    json_path: str | Path | None = None, *, seconds: float = 1.0, clients: tuple[int, ...] = CLIENTS
) -> list[BenchRow]:
    """Measure, print the table and write it as JSON if a path is given.

    Args:
        json_path: where to write the rows.
        seconds: how long each case is measured.
        clients: numbers of clients.
    """
    with tempfile.TemporaryDirectory() as folder:
        bundle = _bundle(Path(folder))
        rows = [_inference(bundle, seconds)]
        for case in _cases():
            for count in clients:
                rows += _measured(case, bundle, count, seconds, rows[0])
    print_table(rows, "policy server on this machine: answers per second")
    print(_percentiles(rows))
    if json_path is not None:
        write_json(rows, json_path)
    return rows


def _bundle(folder: Path) -> Path:
    import torch

    from robo_rlft.export.bundle import write_bundle
    from robo_rlft.policies import ChainConfig, NetworkConfig, Policy, PolicyConfig

    torch.manual_seed(0)
    config = PolicyConfig(NetworkConfig(hidden=[512, 512, 512]), chain=ChainConfig(name="euler", steps=4), chunk=16)
    return write_bundle(Policy(config, _ROBOT).eval(), folder / "bundle", source={})


def _cases() -> list[Case]:
    rng = np.random.default_rng(0)
    state = {"policy": rng.standard_normal((1, 32), dtype=np.float32)}
    pictures = {key: rng.integers(0, 256, (224, 224, 3), dtype=np.uint8) for key in CAMERAS}
    return [Case("state", state), Case("images", {**state, **pictures})]


def _inference(bundle: Path, seconds: float) -> BenchRow:
    """The controller itself, one row at a time, in this process."""
    controller, noise = Controller(bundle), np.zeros((1, 16, 7), np.float32)
    observation = {"policy": _cases()[0].message["policy"][None]}
    ask = lambda: controller.act(observation, noise)  # noqa: E731 - one expression, timed below
    for _ in range(WARM_UP):
        ask()
    before, times = time.process_time(), _timed(ask, seconds)
    detail = {**Latency.of(times).to_dict(), "server_cpu_us": (time.process_time() - before) / len(times) * 1e6}
    return BenchRow("inference alone", 0, len(times) / seconds, "answers/s", detail=detail)


def _measured(case: Case, bundle: Path, count: int, seconds: float, alone: BenchRow) -> list[BenchRow]:
    with ExitStack() as stack:
        sides = {name: stack.enter_context(_side(host, case, bundle, count, *more)) for name, host, more in _servers()}
        generator = np.random.default_rng(0)
        for _ in range(ROUNDS):
            for name in generator.permutation(list(sides)).tolist():
                sides[name].take_turn(seconds / ROUNDS)
    peer = sides.pop(PEER, None)
    limit = alone.value if case.name == "state" else None
    return [_row(f"{case.name} {name}".rstrip(), count, side, peer, limit) for name, side in sides.items()]


def _servers() -> Iterator[tuple[str, Host, tuple[Any, ...]]]:
    """Names and main functions: with micro-batches, without, and the peer where it is installed."""
    yield "", _host, (64, 0.002)
    yield "one by one", _host, (1, 0.0)
    if importlib.util.find_spec("openpi_server") and importlib.util.find_spec("openpi_client"):
        yield PEER, _host_peer, ()


def _backend(case: str, bundle: Path) -> Backend:
    return BundleBackend(bundle) if case == "state" else FreePolicy(bundle)


def _host(told: Connection, case: str, bundle: Path, max_rows: int, max_wait_s: float) -> None:
    server = PolicyServer(_backend(case, bundle), ServeOptions(port=0, max_rows=max_rows, max_wait_s=max_wait_s))
    asyncio.run(server.run(lambda: told.send(server.address[1])))


def _host_peer(told: Connection, case: str, bundle: Path) -> None:
    """openpi's loop around the same policy, which draws its noise and takes one row."""
    from openpi_server.websocket_policy_server import (  # pyright: ignore[reportMissingImports]
        WebsocketPolicyServer,
    )

    class Policy:
        def __init__(self) -> None:
            self.backend, self.rng = _backend(case, bundle), np.random.default_rng(0)

        def infer(self, obs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            arrays = {f"observation/{key}": value[None, None] for key, value in obs.items()}
            arrays["observation/policy"] = obs["policy"][None]
            noise = self.rng.standard_normal((1, 16, 7), dtype=np.float32)
            return {ACTIONS: self.backend.infer("policy", {**arrays, NOISE: noise}, {})[0]}

    with socket.create_server(("127.0.0.1", 0)) as chosen:
        port = chosen.getsockname()[1]
    told.send(port)
    WebsocketPolicyServer(Policy(), "127.0.0.1", port).serve_forever()  # pyright: ignore[reportArgumentType]


@dataclass
class Side:
    """One server with its clients.

    Attributes:
        case: what they send.
        connections: one per client.
        server: its process.
        times: seconds of every round trip.
        rates: answers per second, by turn.
        cpu_s: processor time of the server in all turns.
    """

    case: Case
    connections: list[ClientConnection]
    server: psutil.Process
    times: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    cpu_s: float = 0.0

    def take_turn(self, seconds: float) -> None:
        """All clients ask for so long."""
        before, start = self._cpu(), time.perf_counter()
        with ThreadPoolExecutor(len(self.connections)) as pool:
            found = list(pool.map(lambda one: _asked(one, self.case, seconds), self.connections))
        self.cpu_s += self._cpu() - before
        self.rates.append(sum(map(len, found)) / (time.perf_counter() - start))
        self.times += [t for own in found for t in own]

    def _cpu(self) -> float:
        spent = self.server.cpu_times()
        return spent.user + spent.system


@contextmanager
def _side(host: Host, case: Case, bundle: Path, count: int, *more: Any) -> Iterator[Side]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=host, args=(theirs, case.name, bundle, *more), daemon=True)
    process.start()
    try:
        if not ours.poll(60):
            raise RuntimeError("a server of the benchmark did not start within 60 s")
        url = f"ws://127.0.0.1:{ours.recv()}"
        side = Side(case, [_connected(url) for _ in range(count)], psutil.Process(process.pid))
        for connection in side.connections:
            _asked(connection, case, 0.1)
        yield side
    finally:
        process.kill()
        process.join()


def _asked(connection: ClientConnection, case: Case, seconds: float) -> list[float]:
    """Seconds of one client's round trips."""
    question = pack(case.message)

    def ask() -> None:
        connection.send(question)
        data = connection.recv(timeout=30)
        assert not isinstance(data, str), data
        assert unpack(data)[ACTIONS].shape == (16, 7)

    return _timed(ask, seconds)


def _connected(url: str) -> ClientConnection:
    """A connection past the server's first message; the peer says its port before it listens."""
    deadline = time.monotonic() + 30
    while True:
        try:
            connection = connect(url, compression=None, proxy=None, max_size=None).__enter__()
            break
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
    connection.recv(timeout=30)
    return connection


def _timed(ask: Callable[[], object], seconds: float) -> list[float]:
    times: list[float] = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        ask()
        times.append(time.perf_counter() - start)
    return times


def _row(name: str, clients: int, side: Side, peer: Side | None, limit: float | None) -> BenchRow:
    value = float(np.median(side.rates))
    detail = _figures(side)
    if peer is not None:
        detail |= {f"{PEER}_{key}": figure for key, figure in _figures(peer).items()}
    return BenchRow(
        name,
        clients,
        value,
        "answers/s",
        limit_ratio=value / limit if limit else None,
        peer_ratios={PEER: float(np.median(np.divide(side.rates, peer.rates)))} if peer else {},
        detail=detail,
    )


def _figures(side: Side) -> dict[str, float]:
    return {**Latency.of(side.times).to_dict(), "server_cpu_us": side.cpu_s / len(side.times) * 1e6}


def _percentiles(rows: list[BenchRow]) -> str:
    """Round trips in milliseconds and the server's processor time per answer, ours beside the peer's."""
    titles = "".join(f"{title:>9}" for title in ("p50", "p99", "p99.9", "cpu"))
    lines = [f"{'ms per answer':<20}{'clients':>8}{titles}   {PEER}:{titles}"]
    for row in rows:
        lines.append(f"{row.name:<20}{row.num_envs or '':>8}{_shown(row)}          {_shown(row, f'{PEER}_')}")
    return "\n".join(lines)


def _shown(row: BenchRow, who: str = "") -> str:
    keys = [f"{who}{key}_us" for key in ("p50", "p99", "p99.9", "server_cpu")]
    return "".join(f"{row.detail[key] / 1e3:>9.2f}" for key in keys if key in row.detail)
