"""Which charts a run's metrics make: the one that matters large, the others small."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robo_rlft.training.chart import Chart, Series, Values
from robo_rlft.training.metrics import Columns


@dataclass(frozen=True)
class RunCurves:
    """The metrics of one run.

    Attributes:
        name: how to call the run where several share a chart.
        columns: its metrics by name, with `step` and `wall`.
        verb: what the run did; `pretrain` counts updates, others environment steps.
        success: its task knows success; else the return is what matters.
    """

    name: str
    columns: Columns
    verb: str = "finetune"
    success: bool = False


@dataclass(frozen=True)
class Curves:
    """The charts of a report.

    Attributes:
        by_step: the charts that matter, over steps.
        by_wall: the same over wall time.
        small: the figures to look at next.
        more: everything else that was logged and changed.
    """

    by_step: Sequence[Chart] = ()
    by_wall: Sequence[Chart] = ()
    small: Sequence[Chart] = ()
    more: Sequence[Chart] = ()


@dataclass(frozen=True)
class _Figure:
    title: str
    percent: bool = False
    log: bool = False
    extra: tuple[str, ...] = ()


SMALL: Mapping[str, _Figure] = {
    "rollout/success": _Figure("Success in training", percent=True),
    "rollout/return": _Figure("Return per episode"),
    "rollout/length": _Figure("Episode length (control steps)"),
    "ppo/kl": _Figure("KL from the policy of the rollout"),
    "ppo/explained_variance": _Figure("Explained variance of the critic"),
    "bc/loss": _Figure("Imitation loss", log=True, extra=("bc/validation",)),
    "time/simulation": _Figure("Seconds per iteration", extra=("time/inference", "time/update")),
}
"""Figures shown beside the main one, and how."""
BY_VARIANT: Mapping[str, _Figure] = {
    "curriculum/probability/": _Figure("How often each variant is practised", percent=True),
    "curriculum/q/": _Figure("What is learned from each variant (Q)"),
    "curriculum/success/": _Figure("Success of each variant in training", percent=True),
    "curriculum/return/": _Figure("Return of each variant in training"),
    "evaluation/variant/": _Figure("Each variant in evaluation"),
}
"""Beginnings of the names of figures that a run has of each of its environment's variants: one chart each."""


def charts_of(runs: Sequence[RunCurves]) -> Curves:
    """The charts of one run, or of several runs drawn together."""
    shown = [run for run in runs if len(run.columns["step"])]
    tuned = [run for run in shown if run.verb != "pretrain"]
    small, more = _others(shown, tuned)
    return Curves(
        by_step=[_main(tuned, _by_step(run), wall=False) for run in tuned[:1]],
        by_wall=[_main(tuned, unit_of(tuned)[1], wall=True) for _ in tuned[:1]],
        small=small,
        more=more,
    )


def _main(runs: Sequence[RunCurves], label: str, *, wall: bool) -> Chart:
    success = any(run.success for run in runs)
    key, title = ("rollout/success", "Success") if success else ("rollout/return", "Return per episode")
    scale = unit_of(runs)[0] if wall else 1.0
    series = [s for run in runs for s in _main_series(run, key, "wall" if wall else "step", scale, len(runs) > 1)]
    return Chart(title, label, series, percent=success)


def _main_series(run: RunCurves, key: str, axis: str, scale: float, several: bool) -> Iterator[Series]:
    x, columns = run.columns[axis] / scale, run.columns
    training = columns.get(key)
    if training is not None:
        yield Series(run.name if several else "training episodes", x, training, smooth=True)
    score = columns.get("evaluation/score")
    if score is not None and not several:
        low, high = (columns.get(f"evaluation/{end}") for end in ("low", "high"))
        yield Series("evaluation, 95 % interval", x, score, low, high, dots=True)


def _others(shown: Sequence[RunCurves], tuned: Sequence[RunCurves]) -> tuple[list[Chart], list[Chart]]:
    main = "rollout/success" if any(run.success for run in tuned) else "rollout/return"
    hidden = {"step", "wall", main, *(e for f in SMALL.values() for e in f.extra)}
    names = dict.fromkeys(name for run in shown for name in run.columns)
    free = [n for n in names if n not in hidden and not n.startswith(("evaluation/", *BY_VARIANT))]
    small = [_chart(shown, name, SMALL[name]) for name in SMALL if name in free and _changes(shown, name)]
    small += [_of_variants(shown, prefix) for prefix in BY_VARIANT if any(n.startswith(prefix) for n in names)]
    more = [_chart(shown, n, _Figure(_readable(n))) for n in free if n not in SMALL and _changes(shown, n)]
    return small, more


def _chart(runs: Sequence[RunCurves], name: str, figure: _Figure) -> Chart:
    having = [run for run in runs if name in run.columns]
    keys = (name, *figure.extra)
    series = [_series(run, key, len(having), len(keys)) for run in having for key in keys if key in run.columns]
    return Chart(figure.title, _by_step(having[0]), series, percent=figure.percent, log=figure.log)


def _of_variants(runs: Sequence[RunCurves], prefix: str) -> Chart:
    having = [run for run in runs if any(name.startswith(prefix) for name in run.columns)]
    series = [
        Series(
            " ".join(([run.name] if len(having) > 1 else []) + [name.removeprefix(prefix)]),
            run.columns["step"],
            values,
            smooth=not prefix.startswith("evaluation"),
            dots=prefix.startswith("evaluation"),
        )
        for run in having
        for name, values in run.columns.items()
        if name.startswith(prefix)
    ]
    figure, evaluated = BY_VARIANT[prefix], prefix.startswith("evaluation")
    share = figure.percent or (evaluated and any(run.success for run in having))
    return Chart(figure.title, _by_step(having[0]), series, percent=share)


def _series(run: RunCurves, key: str, runs: int, keys: int) -> Series:
    part = key.split("/")[-1]
    name = part if runs == 1 else run.name if keys == 1 else f"{run.name} {part}"
    return Series(name, run.columns["step"], run.columns[key], smooth=True)


def _changes(runs: Sequence[RunCurves], name: str) -> bool:
    return any(len(np.unique(_finite(run.columns[name]))) > 1 for run in runs if name in run.columns)


def _finite(values: Values) -> Values:
    return values[np.isfinite(values)]


def _by_step(run: RunCurves) -> str:
    return "updates" if run.verb == "pretrain" else "environment steps"


def unit_of(runs: Sequence[RunCurves]) -> tuple[float, str]:
    """Seconds in the unit that suits the longest run, and the axis label."""
    longest = max((float(run.columns["wall"].max()) for run in runs), default=0.0)
    for seconds, name in ((3600.0, "hours"), (60.0, "minutes")):
        if longest >= 2 * seconds:
            return seconds, f"{name} of training"
    return 1.0, "seconds of training"


def _readable(name: str) -> str:
    group, _, part = name.partition("/")
    return f"{part.replace('_', ' ')} ({group})" if part else name.replace("_", " ")
