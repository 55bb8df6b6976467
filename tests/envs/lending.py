"""Environments that are expensive to make: tests borrow them and give them back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Lender:
    """Makes environments, and lends those again that were closed last.

    Args:
        make: an environment from whatever the lender is called with.
        kept: environments that wait for the next borrower at most.
    """

    def __init__(self, make: Callable[..., Any], kept: int) -> None:
        self._make, self._kept = make, kept
        self._idle: list[tuple[str, Any]] = []

    def __call__(self, *args: Any, **settings: Any) -> Any:
        key = f"{args} {sorted(settings.items(), key=str)}"
        found = next((waiting for waiting in self._idle if waiting[0] == key), None)
        if found is not None:
            self._idle.remove(found)
            return found[1]
        env = self._make(*args, **settings)
        env.close = lambda **_: self._wait(key, env)
        return env

    def close(self, kept: int = 0) -> None:
        """Really close all but the last `kept`."""
        while len(self._idle) > kept:
            _, env = self._idle.pop(0)
            del env.close  # a cycle of references, in which the environment would wait for the garbage collector
            env.close()

    def _wait(self, key: str, env: Any) -> None:
        self._idle.append((key, env))
        self.close(self._kept)
