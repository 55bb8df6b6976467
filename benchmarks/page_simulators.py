"""docs/results/simulators.md: what a policy learned in each simulator, before and after."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.curve import picture
from benchmarks.markdown import NOT_MEASURED, circumstances, commands, interval, page, score, section, table
from benchmarks.online import Tasks
from benchmarks.page_learning import Tuned, commands_of, pooled, start_of, training_columns
from benchmarks.records import RunRecord, Score
from robo_rlft.training.curves import RunCurves, charts_of
from robo_rlft.training.progress import duration

PREFIX = "sim_"
"""Records of this page are called `sim_<task>`, or `sim_<task>_<method>` where a task has several."""
INTRODUCTION = (
    "Every end is an evaluation of the last checkpoint. In brackets: 95 % intervals, over seeds (Student's t) or, of a "
    "single seed, over its episodes. The start is the cloned policy that fine-tuning began with; learning from random "
    "weights has none. Wall times are of one core that did other things as well."
)


@dataclass(frozen=True)
class Row:
    """One recipe of a simulator.

    Attributes:
        key: its record is called `sim_<key>`.
        simulator: as the page calls it.
        method: as the page calls it.
        recipe: what makes it.
    """

    key: str
    simulator: str
    method: str
    recipe: str

    @property
    def record(self) -> str:
        """Name of its record."""
        return PREFIX + self.key


ROWS = (
    Row("quadruped_flat", "MuJoCo", "PPO", "gaussian_ppo/quadruped_flat"),
    Row("humanoid_walk", "MuJoCo", "PPO", "gaussian_ppo/humanoid_walk"),
    Row("genesis_go2", "Genesis", "PPO", "gaussian_ppo/genesis_go2"),
    Row("genesis_panda_lift", "Genesis", "BC, then ReinFlow", "reinflow/genesis_panda_lift"),
    Row("maniskill_pick_cube", "ManiSkill", "BC, then ReinFlow", "reinflow/maniskill_pick_cube"),
    Row("maniskill_pick_cube_resip", "ManiSkill", "BC, then a residual", "resip/maniskill_pick_cube"),
    Row("maniskill_peg_insertion", "ManiSkill", "BC", "bc/maniskill_peg_insertion"),
    Row("metadrive", "MetaDrive", "BC, then ReinFlow", "reinflow/metadrive"),
    Row("libero", "LIBERO", "BC", "bc/libero"),
    Row("metaworld_drawer_open", "Meta-World", "BC", "bc/metaworld_drawer_open"),
    Row("ogbench_cube", "OGBench", "BC", "bc/ogbench_cube"),
)
CURRICULUM = (
    Row("curriculum_none", "", "every clearance alike", "reinflow/arm_peg_insert_curriculum"),
    Row("curriculum_initial_states", "", "initial states by variance", "reinflow/arm_peg_insert_curriculum"),
    Row("curriculum_bandit", "", "bandit over clearances", "reinflow/arm_peg_insert_curriculum"),
    Row("curriculum_both", "", "both", "reinflow/arm_peg_insert_curriculum"),
)
ABOUT_CURRICULUM = (
    "ReinFlow on ArmPegInsert with clearances of 4, 1 and .3 mm in equal parts of the evaluation, from one clone of "
    "1 mm ([the method](../methods/curriculum.md))."
)


def simulators_page(tasks: Tasks) -> tuple[str, dict[str, str]]:
    """The page, and its pictures by name."""
    found = {row: _tuned(tasks.get(row.record, ())) for row in (*ROWS, *CURRICULUM)}
    measured = {row: tuned for row, tuned in found.items() if tuned}
    pictures = {f"{row.record}-steps.svg": _picture(tuned) for row, tuned in measured.items() if _improves(tuned)}
    parts = [
        _table(["simulator", "task", "method"], {row: found[row] for row in ROWS}),
        section(
            "Curriculum", ABOUT_CURRICULUM, _table(["sampler"], {row: found[row] for row in CURRICULUM}, named=False)
        ),
        *(_details(row, tuned, tasks[row.record], pictures) for row, tuned in measured.items()),
    ]
    return page("Simulators", INTRODUCTION, *parts), pictures


def _tuned(runs: Sequence[RunRecord]) -> list[Tuned]:
    """Fine-tuning runs, or the cloning where there is nothing else."""
    chosen = [run for run in runs if run.verb == "finetune"] or list(runs)
    return [Tuned(run, start_of(run, runs) if run.verb == "finetune" else None) for run in chosen]


def _improves(tuned: Sequence[Tuned]) -> bool:
    return tuned[0].run.verb == "finetune"


def _table(head: Sequence[str], found: Mapping[Row, Sequence[Tuned]], named: bool = True) -> str:
    columns = [*head, "seeds", "start", "end", "environment steps", "wall time"]
    rows = [[*_names(row, tuned, named), *_figures(tuned)] for row, tuned in found.items()]
    return table(columns, rows)


def _names(row: Row, tuned: Sequence[Tuned], named: bool) -> list[str]:
    task = tuned[0].run.config["env"]["id"] if tuned else f"`{row.recipe}`"
    return [row.simulator, task, row.method] if named else [row.method]


def _figures(tuned: Sequence[Tuned]) -> list[str]:
    if not tuned:
        return ["", "", NOT_MEASURED.rstrip("."), "", ""]
    steps = float(np.mean([t.run.finished.get("env_steps", 0) for t in tuned]))
    wall = float(np.mean([t.run.finished["wall_seconds"] for t in tuned]))
    return [
        str(len(tuned)),
        _shown([t.start for t in tuned]),
        _shown([t.end for t in tuned]),
        f"{steps:,.0f}" if steps else "",
        duration(wall),
    ]


def _shown(scores: Sequence[Score | None]) -> str:
    """Over seeds, or over the episodes of a single one; empty where a seed has none."""
    first, value = scores[0], pooled(scores)
    return "" if first is None or value is None else interval(value, first.share)


def _details(row: Row, tuned: Sequence[Tuned], runs: Sequence[RunRecord], pictures: Mapping[str, str]) -> str:
    """Each seed, the curve and the commands."""
    columns = ["", "start", "end", "episodes", *_metric_names(tuned)]
    file = f"{row.record}-steps.svg"
    return section(
        f"{row.simulator or 'Curriculum'}: {row.method}, `{row.recipe}`",
        circumstances(tuned[0].run.versions),
        table(columns, list(_seeds(tuned))),
        f"![{row.recipe} over steps](curves/{file})" if file in pictures else "",
        commands(list(commands_of(runs))),
    )


def _seeds(tuned: Sequence[Tuned]) -> Iterator[list[str]]:
    for t in tuned:
        metrics = _metrics(t)
        cells = [f"{metrics[name]['mean']:.3g}" if name in metrics else "" for name in _metric_names(tuned)]
        yield [f"seed {t.run.seed}", score(t.start), score(t.end), str(t.end.episodes), *cells]


def _metric_names(tuned: Sequence[Tuned]) -> list[str]:
    """An environment's own figures, where its evaluation has them."""
    return list(dict.fromkeys(name for t in tuned for name in _metrics(t)))


def _metrics(tuned: Tuned) -> Mapping[str, Mapping[str, float]]:
    found = next(iter(tuned.run.evaluations.values()))
    return found.get("metrics", {})


def _picture(tuned: Sequence[Tuned]) -> str:
    share = tuned[0].end.share
    runs = [RunCurves(f"seed {t.run.seed}", training_columns(t.run.columns), "finetune", share) for t in tuned]
    return picture(charts_of(runs).by_step[0])


__all__ = ["PREFIX", "simulators_page"]
