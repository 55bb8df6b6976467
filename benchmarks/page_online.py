"""docs/results/online.md: every online method on the same two tasks, with the same networks and data, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from benchmarks.curve import picture
from benchmarks.markdown import (
    NOT_MEASURED,
    Check,
    checks,
    circumstances,
    commands,
    interval,
    page,
    score,
    section,
    table,
)
from benchmarks.online import METHODS, MORE_CLONING, TASKS, Entry, Tasks, best_and_last, entries, record_name
from benchmarks.page_learning import SEEDS, Published, commands_of, seconds_per_iteration, swept
from benchmarks.page_residual import residual_section
from benchmarks.records import RunRecord
from robo_rlft.training.chart import Chart, Series, Values
from robo_rlft.training.curves import RunCurves, unit_of
from robo_rlft.training.progress import duration

MISSING = "not measured"
INTRODUCTION = (
    "All methods of a task start from demonstrations of the same data set and have networks of the same size. Their "
    "budgets differ where the column of environment steps says so. Start and end are evaluations of 200 episodes on "
    "the same seeds, the end of the LAST checkpoint; in brackets 95 % intervals, over seeds (Student's t) or, of a "
    "single seed, over its episodes. The gain is paired: end minus start of each seed. The start of methods that "
    "fine-tune the same cloned flow is one evaluation. Times are means over seeds, on one core."
)
CALLS = (
    "Network calls are per chunk of actions: the K denoising steps when the policy acts in a rollout, and the scored "
    "steps (FPO: pairs of noise and time) times the epochs in the update, each of which is a forward and a backward "
    "pass. Epochs that the KL guard cuts short are counted in full."
)

SEARCH = "svdd_arm_peg_insert"
"""Record of a critic of the cloned flow's chunks, and of what searching with it gives."""
OTHERWISE = (
    "Weights stay as they are: [RLG](../methods/rlg.md) mixes a fine-tuned flow with the one it came from, w = "
    "`guidance`; [SVDD and best of N](../methods/svdd.md) search with a critic that was learned from the cloned flow's "
    "own rollouts. Intervals are over episodes."
)

SEED_NOTE = (
    "Evaluations during training are shorter than the final one and find the best of many by luck as well: the last "
    "column says whether the last of them lies within the 95 % interval of the best."
)


def online_page(tasks: Tasks, published: Mapping[str, Published]) -> tuple[str, dict[str, str]]:
    """The page, and its pictures by name.

    Args:
        tasks: recorded runs by name of the record; those of a method on a task are called `<method>_<task>`, those of
            ReinFlow by the task alone.
        published: figures to compare with, by recipe.

    Raises:
        RunError: a record of that name holds runs of another environment.
    """
    found = entries(tasks)
    measured = [entry for entry in found if entry.tuned]
    pictures = {name: svg for task in TASKS for name, svg in _pictures(task, measured).items()}
    return (
        page(
            "Online methods",
            INTRODUCTION,
            CALLS,
            circumstances(measured[0].tuned[0].run.versions) if measured else "",
            _comparison(found, published),
            section("Goals", checks(list(_goals(found)))),
            section("Seconds per iteration", _pace(found)),
            *(_figures(task, pictures) for task in TASKS),
            residual_section(tasks),
            section("Other ways to act", OTHERWISE, *_otherwise(tasks)),
            section("Each seed", SEED_NOTE, _seeds(measured)),
            section("Again", _again(tasks, published)),
        ),
        pictures,
    )


def _otherwise(tasks: Tasks) -> Iterator[str]:
    """The sweeps of ReinFlow's runs on the arm, and of the search."""
    runs = [run for name in ("arm_peg_insert", SEARCH) for run in tasks.get(name, ()) if run.sweeps]
    yield from (f"{run.recipe}. {swept(run, sweep)}" for run in runs for sweep in run.sweeps.values())
    if not runs:
        yield MISSING


def _comparison(found: Sequence[Entry], published: Mapping[str, Published]) -> str:
    columns = ["method", "task", "seeds", "start", "end", "gain", "published", "environment steps", "wall time"]
    columns += ["s per iteration", "calls acting", "calls learning"]
    rows = [_row(entry, published.get(f"{entry.method.key}/{entry.task}")) for entry in found]
    return table(columns, [row + [""] * (len(columns) - len(row)) for row in rows])


def _row(entry: Entry, published: Published | None) -> list[str]:
    head, theirs = [entry.method.title, TASKS[entry.task]], _published(published)
    if not entry.tuned:
        return [*head, "", MISSING, MISSING, "", theirs]
    runs = [t.run for t in entry.tuned]
    values = [entry.start, entry.end, entry.gain]
    cells = ["" if value is None else interval(value, entry.share) for value in values]
    steps = [run.finished.get("env_steps", 0) for run in runs]
    wall = np.mean([run.finished["wall_seconds"] for run in runs])
    pace, calls = _seconds(runs), entry.calls
    learning = f"{calls.scored} x {calls.epochs}" if calls.scored else ""
    return [
        *head,
        str(len(runs)),
        *cells,
        theirs,
        f"{np.mean(steps):,.0f}",
        duration(float(wall)),
        f"{pace:.2f}" if pace else "",
        "" if entry.method.key == MORE_CLONING else str(calls.acting),
        learning,
    ]


def _published(published: Published | None) -> str:
    return f"{published.start:,} → {published.end:,}" if published else ""


def _seconds(runs: Sequence[RunRecord]) -> float:
    """Mean seconds of an iteration of PPO; 0 for runs without one."""
    return float(np.mean([sum(seconds_per_iteration(run.columns).values()) for run in runs]))


def _goals(found: Sequence[Entry]) -> Iterator[Check]:
    for entry in (entry for entry in found if entry.method.required):
        name = f"{entry.method.title} on {TASKS[entry.task]}"
        if not entry.tuned:
            yield Check(f"{name}: a significant gain", "", None)
            continue
        yield Check(f"{name}: a significant gain", _verdict(entry), entry.significant)
        yield Check(f"{name}: {SEEDS} seeds", str(len(entry.tuned)), len(entry.tuned) >= SEEDS)


def _verdict(entry: Entry) -> str:
    """The interval that decides, and its kind."""
    if entry.gain is not None:
        return f"{interval(entry.gain, entry.share)}, paired over {len(entry.tuned)} seeds"
    first = entry.tuned[0]
    if first.start is None or len(entry.tuned) > 1:
        return "no start recorded"
    return f"{score(first.start)} → {score(first.end)}, intervals over episodes of one seed"


def _pace(found: Sequence[Entry]) -> str:
    """ReinFlow's and DPPO's iterations beside their network calls."""
    return table(
        ["task", "ReinFlow (s)", "DPPO (s)", "ratio", "ratio of network calls"],
        [_pace_of(task, {e.method.key: e for e in found if e.task == task}) for task in TASKS],
    )


def _pace_of(task: str, by_key: Mapping[str, Entry]) -> list[str]:
    sides = [by_key["reinflow"], by_key["dppo"]]
    seconds = [_seconds([t.run for t in side.tuned]) if side.tuned else None for side in sides]
    cells = [MISSING if value is None else f"{value:.2f}" for value in seconds]
    if not all(side.tuned for side in sides):
        return [TASKS[task], *cells, "", ""]
    (ours, theirs), calls = [value or 0.0 for value in seconds], [side.calls.total for side in sides]
    return [TASKS[task], *cells, f"{theirs / ours:.2f}", f"{calls[1] / calls[0]:.2f}"]


def _seeds(measured: Sequence[Entry]) -> str:
    columns = ["method", "task", "seed", "start", "end", "best in training", "last in training", "within best's"]
    return table(columns, [row for entry in measured for row in _seed_rows(entry)]) if measured else MISSING


def _seed_rows(entry: Entry) -> Iterator[list[str]]:
    for tuned in entry.tuned:
        pair = best_and_last(tuned.run)
        during = [interval(value, entry.share) for value in (pair.best, pair.last)] if pair else ["", ""]
        during.append(("yes" if pair.kept else "no") if pair else "")
        head = [entry.method.title, TASKS[entry.task], str(tuned.run.seed)]
        yield [*head, score(tuned.start), score(tuned.end), *during]


def _figures(task: str, pictures: Mapping[str, str]) -> str:
    names = [name for name in _picture_names(task) if name in pictures]
    shown = "\n".join(f"![{TASKS[task]}, all methods](curves/{name})" for name in names)
    return section(TASKS[task], shown or NOT_MEASURED)


def _picture_names(task: str) -> list[str]:
    return [f"online-{task}-{axis}.svg" for axis in ("steps", "wall")]


def _pictures(task: str, measured: Sequence[Entry]) -> dict[str, str]:
    """Evaluations during training, mean and range over seeds, over environment steps and over wall time."""
    here = [entry for entry in measured if entry.task == task]
    shown = [entry for entry in here if all(best_and_last(t.run) for t in entry.tuned)]
    if not shown:
        return {}
    scale, wall_label = unit_of([RunCurves("", t.run.columns) for entry in shown for t in entry.tuned])
    title = (
        f"{'Success' if shown[0].share else 'Return'} on {TASKS[task]}, evaluated in training: mean, range over seeds"
    )
    axes = {"step": ("environment steps", 1.0), "wall": (wall_label, scale)}
    more = [entry for entry in here if entry.method.key == MORE_CLONING]
    lines = {axis: [_series(entry, axis, unit) for entry in shown] for axis, (_, unit) in axes.items()}
    charts = [
        Chart(title, label, [*lines[axis], *(_level(entry, lines[axis]) for entry in more)], percent=shown[0].share)
        for axis, (label, _) in axes.items()
    ]
    return {name: picture(chart) for name, chart in zip(_picture_names(task), charts, strict=True)}


def _series(entry: Entry, axis: str, unit: float) -> Series:
    """Mean and range over seeds as far as all of them went."""
    curves = [_evaluated(t.run, axis) for t in entry.tuned]
    steps = np.unique(np.concatenate([x for x, _ in curves]))
    x = steps[(steps >= max(x[0] for x, _ in curves)) & (steps <= min(x[-1] for x, _ in curves))]
    values = np.stack([np.interp(x, *curve) for curve in curves])
    low, high = (values.min(0), values.max(0)) if len(curves) > 1 else (None, None)
    return Series(entry.method.title, x / unit, values.mean(0), low, high)


def _level(entry: Entry, others: Sequence[Series]) -> Series:
    """The end of a method that was not evaluated on the way, as a line across."""
    ends = [t.end.value.mean for t in entry.tuned]
    across = np.array([0.0, max(float(line.x[-1]) for line in others)])
    return Series(entry.method.title, across, np.full(2, np.mean(ends)), np.full(2, min(ends)), np.full(2, max(ends)))


def _evaluated(run: RunRecord, axis: str) -> tuple[Values, Values]:
    keep = np.isfinite(run.columns["evaluation/score"])
    return run.columns[axis][keep], run.columns["evaluation/score"][keep]


def _again(tasks: Tasks, published: Mapping[str, Published]) -> str:
    """The commands of the demonstrations and of every run of the comparison."""
    names = [record_name(method.key, task) for task in TASKS for method in METHODS]
    runs = {run.command: run for name in names for run in tasks.get(name, ())}
    theirs = {task: published.get(f"reinflow/{task}") for task in TASKS}
    before = [p.before if p else [f"robo-rlft collect recipe=reinflow/{task}"] for task, p in theirs.items()]
    return commands([*(line for lines in before for line in lines), *commands_of(list(runs.values()))])


__all__ = ["MISSING", "SEARCH", "online_page"]
