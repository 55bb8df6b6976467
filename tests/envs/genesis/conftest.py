"""Scenes are expensive: tests borrow environments and give them back."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from robo_rlft import envs

KEPT = 3
"""Scenes that wait for the next test: one holds 0.1 to 0.7 GB."""


class Lender:
    """Makes environments, and lends those again that were closed last."""

    def __init__(self) -> None:
        self._idle: list[tuple[str, Any]] = []

    def __call__(self, task: str, num_envs: int, **settings: Any) -> Any:
        key = f"{task} {num_envs} {sorted(settings.items(), key=str)}"
        found = next((kept for kept in self._idle if kept[0] == key), None)
        if found is not None:
            self._idle.remove(found)
            return found[1]
        env = envs.make(f"genesis:{task}", num_envs, **settings)
        env.close = lambda **_: self._keep(key, env)  # pyright: ignore[reportAttributeAccessIssue]
        return env

    def close(self, kept: int = 0) -> None:
        """Really close all but the last `kept`."""
        while len(self._idle) > kept:
            _, env = self._idle.pop(0)
            del env.close  # a cycle of references, in which the scene would wait for the garbage collector
            env.close()

    def _keep(self, key: str, env: Any) -> None:
        self._idle.append((key, env))
        self.close(KEPT)


@pytest.fixture(scope="package")
def lend() -> Iterator[Callable[..., Any]]:
    if importlib.util.find_spec("genesis") is None:
        pytest.skip("extra genesis")
    lender = Lender()
    yield lender
    lender.close()
