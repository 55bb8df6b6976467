"""The section of docs/results/online.md about residual policies, which have a harder insertion of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.markdown import Check, checks, interval, section, table
from benchmarks.online import Entry, Method, Tasks
from benchmarks.page_learning import Tuned, start_of
from benchmarks.records import RunRecord
from robo_rlft.training.progress import duration

LOW, MEDIUM = "low", "medium"
METHODS = (
    Method("resip", "ResiP: a residual on the frozen chunks"),
    Method("direct", "ReinFlow on the chunks themselves"),
    Method("student", "cloned from the ResiP policy, sees pixels"),
    Method("dagger", "the same after one round of DAgger"),
)
"""Records are called `<method>_low` and `<method>_medium`."""
GOALS = {LOW: 0.95, MEDIUM: 0.80}
RECORD_NAMES = frozenset(f"{method.key}_{level}" for method in METHODS for level in GOALS)
PUBLISHED = {LOW: "54 → 98 %", MEDIUM: "29 → 76 %"}
ABOUT = (
    "ArmPegInsert with .5 mm of radial clearance, 50 demonstrations. Low randomness: the hole within ± 15 mm and ± 5°; "
    "medium: ± 50 mm and ± 15°. The base is a flow policy over chunks, cloned and then frozen. Published, for "
    "comparison of size only: the task one_leg of [ResiP](https://arxiv.org/abs/2407.16677), a diffusion base and its "
    "residual."
)


def residual_section(tasks: Tasks) -> str:
    """What was measured of residual policies, their students and their alternative."""
    found = [Entry(method, level, _tuned(tasks, f"{method.key}_{level}")) for level in GOALS for method in METHODS]
    measured = [entry for entry in found if entry.tuned]
    if not measured:
        return section("Residual policies", ABOUT, "not measured")
    columns = ["method", "randomness", "seeds", "start", "end", "published", "environment steps", "wall time"]
    return section(
        "Residual policies", ABOUT, table(columns, [_row(entry) for entry in measured]), checks(list(_goals(measured)))
    )


def _tuned(tasks: Tasks, name: str) -> list[Tuned]:
    """Fine-tuning runs of a record, or the cloning where there is nothing else."""
    runs, everything = tasks.get(name, ()), [run for runs in tasks.values() for run in runs]
    chosen = [run for run in runs if run.verb == "finetune"] or list(runs)
    return [Tuned(run, start_of(run, everything) if _goes_on(run) else None) for run in chosen]


def _goes_on(run: RunRecord) -> bool:
    """It began with another policy: every fine-tuning, and cloning that was given one."""
    return run.verb == "finetune" or bool(run.config["run"]["checkpoint"])


def _row(entry: Entry) -> list[str]:
    runs: Sequence[Tuned] = entry.tuned
    steps = np.mean([t.run.finished.get("env_steps", 0) for t in runs])
    wall = np.mean([t.run.finished["wall_seconds"] for t in runs])
    return [
        entry.method.title,
        entry.task,
        str(len(runs)),
        *("" if value is None else interval(value, True) for value in (entry.start, entry.end)),
        PUBLISHED[entry.task] if entry.method.key == "resip" else "",
        f"{steps:,.0f}" if steps else "",
        duration(float(wall)),
    ]


def _goals(measured: Sequence[Entry]) -> Iterator[Check]:
    for entry in (entry for entry in measured if entry.method.key == "resip"):
        goal, end = GOALS[entry.task], entry.end
        if end is not None:
            yield Check(f"ResiP, {entry.task}: at least {goal:.0%}", interval(end, True), end.mean >= goal)


__all__ = ["RECORD_NAMES", "residual_section"]
