"""Errors a user can act on.

Every error below is printed by the command line as one sentence without a traceback: it names the
thing, what was expected and what to do. A bug in robo_rlft itself is any other exception.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can put right: a setting, a file, a missing package."""


class ConfigError(UserError):
    """A setting that does not exist, has the wrong type or contradicts another one."""


class SpecError(UserError):
    """Two parts (data set, environment, policy, bundle) disagree about shapes, rates or names."""


class DataError(UserError):
    """A data set that is damaged, foreign or holds values that cannot be learnt from."""


class CheckpointError(UserError):
    """A checkpoint that is damaged or was made with settings that contradict the present ones."""


class BundleError(UserError):
    """A controller bundle that is incomplete, was altered, or does not match the robot."""


class RunError(UserError):
    """A run folder that is in use, belongs to another configuration, or cannot be written."""


class ServerError(UserError):
    """A policy server that refuses a client, or is something else than the client expects."""


class ServerAwayError(ServerError):
    """A policy server that cannot be reached or does not answer at present; a later try may succeed."""


class MissingExtraError(UserError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str, needed_for: str) -> None:
        super().__init__(f"{needed_for} needs '{package}': pip install 'robo-rlft[{extra}]'")


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """One sentence for a misspelt name, with the nearest right ones first."""
    names = sorted(known)
    near = difflib.get_close_matches(name.lower(), [n.lower() for n in names], n=3, cutoff=0.5)
    shown = [n for n in names if n.lower() in near] or names
    hint = "did you mean" if near else "known are"
    return f"unknown {kind} '{name}': {hint} {', '.join(shown)}"
