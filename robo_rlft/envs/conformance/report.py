"""Runs the rules on an environment and says what came of each."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from robo_rlft.envs.base import BatchEnv
from robo_rlft.envs.conformance.rules import RULES, CannotError, ConformanceError, Factory, Rule, closes

Status = Literal["pass", "cannot", "fail"]


@dataclass(frozen=True)
class Finding:
    """What came of one rule.

    Attributes:
        rule: its name.
        status: `pass`; `cannot`: the environment says, or the machine is why, that it cannot; `fail`: it should.
        detail: a figure, the reason, or what is wrong.
    """

    rule: str
    status: Status
    detail: str = ""


def check(factory: Factory) -> None:
    """Run every rule.

    Raises:
        ConformanceError: naming the first rule that is broken and not named in `BatchEnv.cannot`.
    """
    for rule in RULES:
        follow(rule, factory)


def follow(rule: Rule, factory: Factory) -> Finding:
    """Run one rule.

    Raises:
        ConformanceError: it is broken and not named in `BatchEnv.cannot`.
    """
    env = factory(1)
    stated = env.cannot.get(rule.__name__)
    env.close()
    if stated is not None:
        return Finding(rule.__name__, "cannot", stated)
    try:
        return Finding(rule.__name__, "pass", rule(factory) or "")
    except CannotError as error:
        return Finding(rule.__name__, "cannot", str(error))


def examine(factory: Factory) -> Iterator[Finding]:
    """Run every rule on as few environments as possible: building one may take a minute."""
    kept = _Kept(factory)
    try:
        for rule in RULES:
            yield _found(rule, factory if rule is closes else kept)
    finally:
        kept.let_go()


def _found(rule: Rule, factory: Factory) -> Finding:
    try:
        return follow(rule, factory)
    except ConformanceError as error:
        return Finding(rule.__name__, "fail", str(error))
    except Exception as error:
        return Finding(rule.__name__, "fail", " ".join(f"{type(error).__name__}: {error}".split()))


class _Kept:
    """A factory whose environments are handed out again after they were closed."""

    def __init__(self, factory: Factory) -> None:
        self._factory = factory
        self._idle: dict[int, list[BatchEnv]] = {}
        self._made: list[tuple[BatchEnv, Any]] = []

    def __call__(self, num_envs: int) -> BatchEnv:
        idle = self._idle.setdefault(num_envs, [])
        if idle:
            return idle.pop()
        env = self._factory(num_envs)
        self._made.append((env, env.close))
        # On this object only: its class, and every other environment, closes as before.
        env.close = functools.partial(self._take_back, env)
        return env

    def let_go(self) -> None:
        """Close all of them."""
        for _, close in self._made:
            close()

    def _take_back(self, env: BatchEnv, **_: Any) -> None:
        idle = self._idle[env.num_envs]
        if all(other is not env for other in idle):
            idle.append(env)
