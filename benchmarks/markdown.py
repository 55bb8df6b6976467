"""The pieces of a result page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.records import Score
from robo_rlft.training.statistics import Interval

WRITTEN = "*Written by `python -m benchmarks.results`; every figure comes from [recorded runs](README.md).*"
NOT_MEASURED = "Not measured yet."


@dataclass(frozen=True)
class Check:
    """A goal beside what was measured.

    Attributes:
        goal: the goal in words.
        measured: the figure that decides.
        reached: it decides for the goal; None where nothing was measured.
    """

    goal: str
    measured: str
    reached: bool | None


def page(title: str, *parts: str) -> str:
    """A page from its parts; empty ones are left out."""
    return "\n\n".join([f"# {title}", WRITTEN, *(part for part in parts if part)]) + "\n"


def section(title: str, *parts: str) -> str:
    """A titled section from its parts; empty ones are left out."""
    return "\n\n".join([f"## {title}", *(part for part in parts if part)])


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, its first column to the left, the figures to the right; columns without any entry are left out."""
    kept = [i for i in range(len(columns)) if any(row[i] for row in rows)]
    lines = [[columns[i] for i in kept], ["---" if i == 0 else "---:" for i in kept]]
    lines += [[row[i] for i in kept] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def checks(entries: Sequence[Check]) -> str:
    """Goals, what was measured, and whether they are reached."""
    words = {True: "yes", False: "no", None: "not measured"}
    return table(["goal", "measured", "reached"], [[e.goal, e.measured, words[e.reached]] for e in entries])


def commands(lines: Sequence[str]) -> str:
    """A block of commands."""
    return "\n".join(["```bash", *lines, "```"])


def score(value: Score | None) -> str:
    """A figure with its interval over episodes."""
    return "" if value is None else interval(value.value, value.share)


def interval(value: Interval, share: bool) -> str:
    """`63.0 % [56.1, 69.4]` or `3,205 [3,100, 3,310]`. Student's interval of a share, or of a difference of shares, may
    go beyond what there is: it ends there.
    """
    low, high = (max(value.low, -1.0), min(value.high, 1.0)) if share else (value.low, value.high)
    return f"{figure(value.mean, share)} [{bare(low, share)}, {bare(high, share)}]"


def figure(value: float, share: bool) -> str:
    """A success rate in per cent, or a return."""
    return f"{bare(value, share)} %" if share else bare(value, share)


def bare(value: float, share: bool) -> str:
    """The same without its unit."""
    if share:
        return f"{100 * value:.1f}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def circumstances(versions: Mapping[str, Any]) -> str:
    """Machine, packages and source as one sentence."""
    machine, packages, git = versions["machine"], versions["versions"], versions.get("git")
    shown = {"Python": "python", "torch": "torch", "MuJoCo": "mujoco"}
    names = ", ".join(f"{name} {packages[key]}" for name, key in shown.items() if key in packages)
    source = f"; source {git['commit'][:10]}" if git else ""
    return f"Measured on {machine['cores']} cores of {machine['cpu']}, {names}{source}."
