from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robo_rlft.export.manifest import MANIFEST_FILE, Manifest, read_manifest
from robo_rlft.export.serving.backend import Backend, BundleBackend
from robo_rlft.export.serving.options import ServeOptions
from robo_rlft.export.serving.server import PolicyServer


class ContinuedManifest(Manifest):
    """A manifest whose model takes three actions that are on their way, as its list of inputs says."""

    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        return {**super().input_shapes(), "prefix": (3, 2), "delay": (1,)}


class MarkedBackend:
    """A policy whose every action is the newest x of its own row, and which notes who was computed together.

    Args:
        bundle: whose shapes it has.
        seconds: what one inference takes.
    """

    text: tuple[str, ...] = ()
    golden_error = 0.0

    def __init__(self, bundle: Path, seconds: float = 0.0) -> None:
        self.manifest, self.description = read_manifest(bundle), (bundle / MANIFEST_FILE).read_bytes()
        self.seconds, self.batches = seconds, list[list[float]]()
        self.texts: list[Mapping[str, str]] = []

    def infer(self, stage: str, arrays: Mapping[str, np.ndarray], text: Mapping[str, str]) -> np.ndarray:
        marks = arrays["observation/policy"][:, -1, 0]
        self.batches.append(marks.tolist())
        self.texts.append(text)
        time.sleep(self.seconds)
        return np.broadcast_to(marks[:, None, None], (len(marks), *self.manifest.event)).copy()


@contextmanager
def serving(backend: Backend, **options: Any) -> Iterator[PolicyServer]:
    """A server on a free port, in a thread; it must end cleanly."""
    server = PolicyServer(backend, ServeOptions(**{"port": 0, **options}))
    ready, finished = threading.Event(), list[bool]()
    thread = threading.Thread(target=lambda: finished.append(asyncio.run(server.run(ready.set))))
    thread.start()
    assert ready.wait(10)
    try:
        yield server
    finally:
        server.stop()
        thread.join(20)
    assert finished == [True]


def url_of(server: PolicyServer) -> str:
    return f"{server.options.url_scheme}://localhost:{server.address[1]}"


def marked(mark: float) -> dict[str, np.ndarray]:
    """An observation of one robot that `MarkedBackend` recognises."""
    return {"policy": np.full((2, 3), mark, np.float32)}


@pytest.fixture(scope="session")
def served(exported: Path) -> Iterator[PolicyServer]:
    """The toy bundle, for tests that only ask."""
    with serving(BundleBackend(exported)) as server:
        yield server


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread does in its own time."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)
