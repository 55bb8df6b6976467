"""docs/results/learning.md: what fine-tuning made of each task, beside what others published."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml

from benchmarks.curve import picture
from benchmarks.markdown import (
    NOT_MEASURED,
    Check,
    checks,
    circumstances,
    commands,
    figure,
    interval,
    page,
    score,
    section,
    table,
)
from benchmarks.records import RESULTS, RunRecord, Score
from robo_rlft.training.chart import Chart, Series
from robo_rlft.training.curves import RunCurves, charts_of
from robo_rlft.training.metrics import Columns
from robo_rlft.training.paths import SCRATCH
from robo_rlft.training.progress import duration
from robo_rlft.training.statistics import Interval, student_mean

ENV_STEPS = 10_000_000
"""Goal: the published end value within this many environment steps."""
SEEDS = 3
PARTS = ("simulation", "inference", "update")
INTRODUCTION = (
    "Every row is the last checkpoint of one seed. In brackets: 95 % intervals, of a seed over its evaluated episodes, "
    "of the mean over seeds (Student's t). The start is the evaluation of the policy that fine-tuning began with, or, "
    "where that is not recorded, the run's own before its first update. Curves show training episodes, which explore. "
    "Wall times are of one core of a machine that did other things as well."
)


@dataclass(frozen=True)
class Published:
    """What others reached on a task.

    Attributes:
        start, end: the mean return before and after fine-tuning.
        env_steps: environment steps in between.
        source: where it was published, as Markdown.
        before: commands that make the data the recipe starts from.
    """

    start: float
    end: float
    env_steps: int
    source: str
    before: Sequence[str]


@dataclass(frozen=True)
class Tuned:
    """One fine-tuning run with the score it began with.

    Attributes:
        run: the run.
        start: score of the policy it began with; None from random weights, or where it was not measured.
    """

    run: RunRecord
    start: Score | None

    @property
    def end(self) -> Score:
        """Score of its last checkpoint."""
        assert self.run.result is not None, "an unevaluated run is not recorded"
        return self.run.result


def read_published() -> dict[str, Published]:
    """Published figures by recipe."""
    entries = yaml.safe_load((RESULTS / "published.yaml").read_text(encoding="utf-8"))
    return {recipe: Published(**entry) for recipe, entry in entries.items()}


def learning_page(
    tasks: Mapping[str, Sequence[RunRecord]], published: Mapping[str, Published]
) -> tuple[str, dict[str, str]]:
    """The page, and its pictures by name.

    Args:
        tasks: recorded runs by name of the record.
        published: figures to compare with, by recipe.
    """
    measured = {name: runs for name, runs in tasks.items() if any(run.verb == "finetune" for run in runs)}
    recipes = {name: next(run.recipe for run in runs if run.verb == "finetune") for name, runs in measured.items()}
    missing = [recipe for recipe in published if recipe not in recipes.values()]
    untuned = [section(name, "No fine-tuning is recorded.") for name in tasks if name not in measured]
    order = sorted(measured, key=lambda name: (recipes[name] not in published, name))
    parts = [_measured(name, recipes[name], measured[name], published.get(recipes[name])) for name in order]
    parts += [*(_unmeasured(recipe, published[recipe]) for recipe in missing), *untuned]
    pictures = {file: svg for name in order for file, svg in _pictures(name, measured[name], published).items()}
    return page("Learning", INTRODUCTION, *parts), pictures


def tuned_runs(runs: Sequence[RunRecord]) -> list[Tuned]:
    """Fine-tuning runs in order of their seed, each with the score of the policy it began with."""
    return [Tuned(run, start_of(run, runs)) for run in runs if run.verb == "finetune"]


def start_of(run: RunRecord, runs: Sequence[RunRecord]) -> Score | None:
    """Score of the policy a run began with: of the recorded cloning, else its own evaluation before the first update.

    Args:
        run: fine-tuning, or cloning that goes on.
        runs: among which the cloning is looked for.
    """
    if run.config["run"]["checkpoint"] == SCRATCH:
        return None
    cloned = [other for other in runs if other.verb == "pretrain" and (other.recipe, other.seed) == _source(run)]
    return next((other.result for other in cloned if other is not run and not is_continued(other)), None) or _first(run)


def is_continued(run: RunRecord) -> bool:
    """Cloning for a given time, to compare fine-tuning with."""
    return run.config["bc"]["wall_seconds"] > 0


def over_seeds(scores: Sequence[Score | None]) -> Interval | None:
    """Mean over seeds with its interval; None where a seed has no score or there is only one seed.

    Student's interval of a share may go beyond what there is: it ends there.
    """
    known = [s for s in scores if s is not None]
    if len(known) != len(scores) or len(scores) < 2:
        return None
    found = student_mean(np.array([s.value.mean for s in known]))
    return Interval(found.mean, max(found.low, 0.0), min(found.high, 1.0)) if known[0].share else found


def pooled(scores: Sequence[Score | None]) -> Interval | None:
    """Mean with its interval: over seeds, or over the episodes of a single one; None where a seed has no score."""
    if len(scores) == 1:
        return scores[0].value if scores[0] is not None else None
    return over_seeds(scores)


def seconds_per_iteration(columns: Columns) -> dict[str, float]:
    """Mean seconds of each part of an iteration, by name."""
    rounds = columns["rounds"]
    parts = {name.split("/")[1]: values for name, values in columns.items() if name.startswith("time/")}
    return {name: _mean(values, rounds) for name, values in parts.items()}


def _measured(name: str, recipe: str, runs: Sequence[RunRecord], published: Published | None) -> str:
    tuned = tuned_runs(runs)
    env_id = tuned[0].run.config["env"]["id"]
    what = f"{env_id}, {tuned[0].end.episodes} episodes per evaluation."
    pictures = [f"![{env_id} over {axis}](curves/{name}-{axis}.svg)" for axis in ("steps", "wall")]
    return section(
        recipe or name,
        f"{what} {circumstances(tuned[0].run.versions)}",
        _scores(tuned, published),
        f"Published: {published.source}." if published else "",
        checks(list(_goals(tuned, published))) if published else "",
        "\n".join(pictures),
        _costs(tuned),
        *(swept(t.run, sweep) for t in tuned for sweep in t.run.sweeps.values()),
        commands([*(published.before if published else ()), *commands_of(runs)]),
    )


def _unmeasured(recipe: str, published: Published) -> str:
    steps = ["pretrain", "finetune", "evaluate"]
    loop = [f"  robo-rlft {verb} recipe={recipe} seed=${{seed}}" for verb in steps]
    seeds = " ".join(map(str, range(SEEDS)))
    return section(
        recipe,
        f"{NOT_MEASURED} Published: {_arrow(published)} ({published.source}).",
        commands([*published.before, f"for seed in {seeds}; do", *loop, "done"]),
    )


def _arrow(published: Published) -> str:
    return f"{published.start:,} → {published.end:,} in {published.env_steps:,} environment steps"


def _scores(tuned: Sequence[Tuned], published: Published | None) -> str:
    rows = [[f"seed {t.run.seed}", score(t.start), score(t.end), f"{t.run.finished['env_steps']:,}"] for t in tuned]
    if len(tuned) > 1:
        starts, ends = over_seeds([t.start for t in tuned]), over_seeds([t.end for t in tuned])
        share = tuned[0].end.share
        steps = np.mean([t.run.finished["env_steps"] for t in tuned])
        cells = ["" if value is None else interval(value, share) for value in (starts, ends)]
        rows.append([f"mean of {len(tuned)}", *cells, f"{steps:,.0f}"])
    if published:
        rows.append(["published", f"{published.start:,}", f"{published.end:,}", f"{published.env_steps:,}"])
    return table(["", "start", "end", "environment steps"], rows)


def _goals(tuned: Sequence[Tuned], published: Published) -> Iterator[Check]:
    end = float(np.mean([t.end.value.mean for t in tuned]))
    steps = max(t.run.finished["env_steps"] for t in tuned)
    share = tuned[0].end.share
    yield Check(
        f"ends at {figure(published.end, share)}, the mean over seeds", figure(end, share), end >= published.end
    )
    yield Check(f"within {ENV_STEPS:,} environment steps", f"{steps:,}", steps <= ENV_STEPS)
    yield Check(f"{SEEDS} seeds", str(len(tuned)), len(tuned) >= SEEDS)


def swept(run: RunRecord, sweep: Mapping[str, Any]) -> str:
    """How the last checkpoint acts at other values of one setting, and for how many network calls where they differ."""
    share = sweep["rows"][0]["success"] is not None
    scores = [Interval(**row["success" if share else "return"]) for row in sweep["rows"]]
    calls = [sum(row.get("network_calls", {}).values()) for row in sweep["rows"]]
    shown = len(set(calls)) > 1
    rows = [
        [f"{row['value']:g}", interval(score, share), *([str(count)] if shown else [])]
        for row, score, count in zip(sweep["rows"], scores, calls, strict=True)
    ]
    key, episodes = sweep["key"], sweep["episodes"]
    head = f"The last checkpoint of seed {run.seed} at other values of `{key}`, {episodes} episodes each:"
    return f"{head}\n\n{table([key.split('.')[1], 'score', *(['network calls'] if shown else [])], rows)}"


def _costs(tuned: Sequence[Tuned]) -> str:
    rows = [_cost(t.run) for t in tuned]
    parts = [f"{part} (s)" for part in PARTS]
    return table(["", "wall time", "iterations", "per iteration (s)", *parts], rows)


def _cost(run: RunRecord) -> list[str]:
    seconds = seconds_per_iteration(run.columns)
    parts = [seconds.get(part, math.nan) for part in PARTS]
    whole = sum(seconds.values())
    cells = ["" if math.isnan(part) else f"{part:.2f}" for part in parts]
    wall, rounds = duration(run.finished["wall_seconds"]), f"{run.finished['iterations']:,}"
    return [f"seed {run.seed}", wall, rounds, f"{whole:.2f}", *cells]


def commands_of(runs: Sequence[RunRecord]) -> Iterator[str]:
    """Each run's command and its evaluation; commands that differ in their seed only stand once, in a loop."""
    loops: dict[str, list[int]] = {}
    for run in sorted(runs, key=lambda run: run.verb == "finetune"):
        loops.setdefault(re.sub(rf"\bseed(=?){run.seed}\b", r"seed\1${seed}", run.command), []).append(run.seed)
    for command, seeds in loops.items():
        evaluate = _evaluation(command)
        if len(seeds) == 1:
            yield from (line.replace("${seed}", str(seeds[0])) for line in (command, evaluate))
            continue
        yield f"for seed in {' '.join(map(str, seeds))}; do"
        yield from (f"  {line}" for line in (command, evaluate))
        yield "done"


def _evaluation(command: str) -> str:
    verb, recipe = re.search(r"robo-rlft (\w+)(?: recipe=(\S+))?", command).groups()  # pyright: ignore[reportOptionalMemberAccess]
    given = re.search(r"run\.dir=(\S+)", command)
    where = given[1] if given else f"runs/{recipe}/{verb}-seed${{seed}}" if recipe else "RUN"
    return f"robo-rlft evaluate {where}"


def _pictures(name: str, runs: Sequence[RunRecord], published: Mapping[str, Published]) -> dict[str, str]:
    tuned = tuned_runs(runs)
    share = tuned[0].end.share
    charts = charts_of(
        [RunCurves(f"seed {t.run.seed}", training_columns(t.run.columns), "finetune", share) for t in tuned]
    )
    theirs = published.get(tuned[0].run.recipe)
    axes = {"steps": charts.by_step[0], "wall": charts.by_wall[0]}
    return {f"{name}-{axis}.svg": picture(_with(chart, theirs)) for axis, chart in axes.items()}


def training_columns(columns: Columns) -> Columns:
    """Metrics without the rows of evaluations."""
    keep = columns["rounds"] > 0
    return {name: values[keep] for name, values in columns.items()}


def _with(chart: Chart, published: Published | None) -> Chart:
    """The chart with the published end value as a line across."""
    if published is None:
        return chart
    last = max(float(series.x.max()) for series in chart.series)
    line = Series(f"published end {published.end:,}", np.array([0.0, last]), np.full(2, float(published.end)))
    return dataclasses.replace(chart, series=[*chart.series, line])


def _source(run: RunRecord) -> tuple[str, int] | None:
    """Recipe and seed of the cloning it began with: its own, if its command names no other."""
    if "run.checkpoint=" not in run.command:
        return run.recipe, run.seed
    named = re.search(r"run\.checkpoint=runs/(\S+)/pretrain-seed(\d+)", run.command)
    return (named[1], int(named[2])) if named else None


def _first(run: RunRecord) -> Score | None:
    columns = run.columns
    if run.result is None or "evaluation/score" not in columns:
        return None
    at = np.flatnonzero((columns["step"] == 0) & np.isfinite(columns["evaluation/score"]))
    if not len(at):
        return None
    value = Interval(*(float(columns[f"evaluation/{name}"][at[0]]) for name in ("score", "low", "high")))
    return Score(value, run.result.share, run.config["run"]["eval_episodes"])


def _mean(values: np.ndarray, weights: np.ndarray) -> float:
    keep = np.isfinite(values) & (weights > 0)
    return float(np.average(values[keep], weights=weights[keep])) if keep.any() else math.nan
