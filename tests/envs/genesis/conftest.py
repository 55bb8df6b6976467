"""Scenes are expensive: tests borrow environments and give them back."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from robo_rlft import envs


class Lender:
    """Makes environments, and lends those again that were closed."""

    def __init__(self) -> None:
        self._all: list[Any] = []
        self._idle: dict[str, list[Any]] = {}

    def __call__(self, task: str, num_envs: int, **settings: Any) -> Any:
        key = f"{task} {num_envs} {sorted(settings.items(), key=str)}"
        idle = self._idle.setdefault(key, [])
        if idle:
            return idle.pop()
        env = envs.make(f"genesis:{task}", num_envs, **settings)
        self._all.append((env, env.close))
        env.close = lambda **_: idle.append(env)  # pyright: ignore[reportAttributeAccessIssue]
        return env

    def close(self) -> None:
        for _, really_close in self._all:
            really_close()


@pytest.fixture(scope="package")
def lend() -> Iterator[Callable[..., Any]]:
    if importlib.util.find_spec("genesis") is None:
        pytest.skip("extra genesis")
    lender = Lender()
    yield lender
    lender.close()
