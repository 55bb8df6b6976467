"""The online methods side by side: which recorded runs belong to which, and what they cost in network calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from benchmarks.page_learning import Tuned, pooled, start_of
from benchmarks.records import RunRecord
from robo_rlft.errors import RunError
from robo_rlft.policies.chains import build_chain
from robo_rlft.policies.config import ChainConfig
from robo_rlft.training.statistics import Interval, student_mean

Tasks = Mapping[str, Sequence[RunRecord]]
TASKS: Mapping[str, str] = {"hopper": "Hopper", "arm_peg_insert": "ArmPegInsert"}
"""Tasks of the comparison, with their environments."""
MORE_CLONING = "bc_more"


@dataclass(frozen=True)
class Method:
    """A row of the comparison.

    Attributes:
        key: of its records: `<key>_<task>`.
        title: as the page calls it.
        by_ppo: PPO on its chain: the update's network calls follow from the settings.
        required: its gain is a goal.
    """

    key: str
    title: str
    by_ppo: bool = False
    required: bool = False


METHODS = (
    Method("reinflow", "ReinFlow", by_ppo=True, required=True),
    Method("flow_sde", "Flow-SDE", by_ppo=True, required=True),
    Method("flow_noise", "Flow-Noise", by_ppo=True, required=True),
    Method("dppo", "DPPO", by_ppo=True, required=True),
    Method("gaussian_ppo", "Gaussian PPO", by_ppo=True, required=True),
    Method("shortcut", "Shortcut", by_ppo=True),
    Method("mean_flow", "Mean flow", by_ppo=True),
    Method("fpo", "FPO", by_ppo=True),
    Method("group", "ReinFlow, group advantage", by_ppo=True),
    Method("dsrl", "DSRL"),
    Method("awr", "AWR"),
    Method(MORE_CLONING, "BC continued for the same wall time"),
)


@dataclass(frozen=True)
class Calls:
    """Network calls per chunk.

    Attributes:
        acting: denoising steps when it acts in a rollout.
        scored: denoising steps (FPO: pairs) that an epoch of the update computes; 0 where that is not known.
        epochs: passes over each chunk.
    """

    acting: int
    scored: int
    epochs: int

    @property
    def total(self) -> int:
        """Acting and learning together."""
        return self.acting + self.scored * self.epochs


@dataclass(frozen=True)
class Entry:
    """What was measured of one method on one task.

    Attributes:
        method: the method.
        task: `hopper` or `arm_peg_insert`.
        tuned: its runs by seed, each with the score it began with; empty where nothing was measured.
    """

    method: Method
    task: str
    tuned: Sequence[Tuned]

    @property
    def name(self) -> str:
        """Of its records."""
        return record_name(self.method.key, self.task)

    @property
    def share(self) -> bool:
        """The score is a success rate."""
        return self.tuned[0].end.share

    @property
    def gain(self) -> Interval | None:
        """Mean of end minus start, paired by seed, with Student's interval; None with fewer than two pairs."""
        pairs = [t.end.value.mean - t.start.value.mean for t in self.tuned if t.start is not None]
        return student_mean(np.array(pairs)) if len(pairs) == len(self.tuned) > 1 else None

    @property
    def significant(self) -> bool | None:
        """The gain is above zero at 95 %.

        By the paired interval over seeds; of a single seed by intervals over episodes that do not touch. None where
        nothing, or no start, was measured.
        """
        if self.gain is not None:
            return self.gain.low > 0
        if len(self.tuned) != 1 or self.tuned[0].start is None:
            return None
        return self.tuned[0].end.value.low > self.tuned[0].start.value.high

    @property
    def start(self) -> Interval | None:
        """Score it began with: over seeds, or over the episodes of a single one."""
        return pooled([t.start for t in self.tuned])

    @property
    def end(self) -> Interval | None:
        """Score of the last checkpoints, likewise."""
        return pooled([t.end for t in self.tuned])

    @property
    def calls(self) -> Calls:
        """Network calls of its settings."""
        config = self.tuned[0].run.config
        chain = build_chain(_chain_config(config["policy"]["chain"]), (1, 1), 1)
        if not self.method.by_ppo:
            return Calls(chain.steps, 0, 0)
        return Calls(chain.steps, chain.scored_steps, config["ppo"]["epochs"])


@dataclass(frozen=True)
class BestAndLast:
    """Two evaluations made during a run.

    Attributes:
        best: the one with the highest score.
        last: the last one.
    """

    best: Interval
    last: Interval

    @property
    def kept(self) -> bool:
        """The last is within the interval of the best, whose score is the larger one by choice."""
        return self.last.mean >= self.best.low


def record_name(key: str, task: str) -> str:
    """The record that holds a method's runs on a task; ReinFlow's are called by the task alone."""
    return task if key == "reinflow" else f"{key}_{task}"


def entries(tasks: Tasks) -> list[Entry]:
    """Every method on every task, measured or not.

    Raises:
        RunError: a record of the comparison holds runs of another environment.
    """
    return [Entry(method, task, _tuned(tasks, method, task)) for task in TASKS for method in METHODS]


def compared(name: str) -> str | None:
    """`method/task` of a record of the comparison; None of any other record."""
    pairs = ((method.key, task) for method in METHODS for task in TASKS)
    return next((f"{key}/{task}" for key, task in pairs if record_name(key, task) == name), None)


def best_and_last(run: RunRecord) -> BestAndLast | None:
    """The evaluations during a run; None without any."""
    rows = list(_evaluations(run))
    return BestAndLast(max(rows, key=lambda row: row.mean), rows[-1]) if rows else None


def _evaluations(run: RunRecord) -> Iterator[Interval]:
    if "evaluation/score" not in run.columns:
        return
    table = np.stack([run.columns[f"evaluation/{name}"] for name in ("score", "low", "high")], axis=1)
    yield from (Interval(*map(float, row)) for row in table[np.isfinite(table[:, 0])])


def _tuned(tasks: Tasks, method: Method, task: str) -> list[Tuned]:
    name, verb = record_name(method.key, task), "pretrain" if method.key == MORE_CLONING else "finetune"
    runs = [run for run in tasks.get(name, ()) if run.verb == verb]
    for run in runs:
        if run.config["env"]["id"] != TASKS[task]:
            raise RunError(f"record {name}/{run.name} is of {run.config['env']['id']}: record it by another name")
    everything = [run for runs in tasks.values() for run in runs]
    return [Tuned(run, start_of(run, everything)) for run in runs]


def _chain_config(given: Mapping[str, Any]) -> ChainConfig:
    """Settings as they were when the run was made; later ones at their defaults."""
    known = {field.name for field in fields(ChainConfig)}
    return ChainConfig(**{key: value for key, value in given.items() if key in known})


__all__ = [
    "METHODS",
    "MORE_CLONING",
    "TASKS",
    "BestAndLast",
    "Calls",
    "Entry",
    "Method",
    "Tasks",
    "best_and_last",
    "compared",
    "entries",
    "record_name",
]
